"""One reweighted step, side by side in one run: ``fused`` and ``higher`` against a plain step of the same batch.

    python benchmarks/reweight.py [--repeats 9] [--threads 2] [--model minilm|roberta-base-sized|both]

A plain step is one forward and backward of the 16 pseudo-labelled rows with uniform weights; a reweighted step
also sees 4 labelled rows. Steps alternate, so that whatever else the machine does falls on all alike; the median
of the repeats is printed, and the ratio of medians.

    python benchmarks/reweight.py --data DATA [--tasks sst2 mnli] [--precision fp32] [--repeats 24] [--threads 1]

The same of ``fused`` alone on what a run of preset `released` meets: its first batches of the texts of DATA, with
dropout, each as a plain step and then reweighted. Printed are medians, the ratio of the sums, and how many tokens a
reweighted step has in place of the plain one's: padded, where all rows of both batches share one pass; padded, where
longer labelled texts have a pass of their own, as on layers that need padding; and real ones, as on those that do not.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from peer_data import draw_of
from transformers import RobertaConfig, RobertaForMaskedLM

from listflow.pipeline.backbone import pretrained
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Batch
from listflow.pipeline.method.reweight import ENGINES, Step, kl
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.config import VerbalizerHead
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.stages.presets import stages
from listflow.pipeline.training.models import student_recipe
from listflow.pipeline.training.trainer import Material, Trainer

UNLABELLED, LABELLED, TOKENS = 16, 4, 32


def backbone_of(kind: str) -> Backbone:
    """The embedded backbone, or a random one of RoBERTa-base's size, in fp32 with eager attention."""
    if kind == "minilm":
        model, tokenizer = pretrained.load_minilm()
    else:
        torch.manual_seed(0)
        model, tokenizer = RobertaForMaskedLM(RobertaConfig(max_position_embeddings=514, type_vocab_size=1)), None
    model.set_attn_implementation("eager")
    return Backbone(model, tokenizer, kind)


def random_batch(rows: int) -> Batch:
    ids = torch.randint(1000, 20000, (rows, TOKENS))
    return Batch(ids, torch.ones_like(ids), torch.full((rows,), TOKENS - 3))


def compare(kind: str, width: int, repeats: int) -> None:
    """Prints the median seconds of each kind of step on one backbone."""
    model = Classifier(backbone_of(kind), stages("list", width=width), VerbalizerHead(), [(2307,), (6659,)])
    parameters = list(model.tunable().values())
    soft = torch.rand(UNLABELLED, 2).softmax(-1)
    step = Step(random_batch(UNLABELLED), soft, random_batch(LABELLED), torch.tensor([0, 1, 0, 1]))

    def plain() -> None:
        loss = kl(soft, model(step.unlabelled)).mean()
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient

    kinds: dict[str, Callable[[], object]] = {"plain": plain}
    kinds |= {name: lambda engine=engine: engine(model, parameters, step) for name, engine in ENGINES.items()}
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    for repeat in range(repeats + 1):
        for name, take in kinds.items():
            began = time.perf_counter()
            take()
            if repeat:
                taken[name].append(time.perf_counter() - began)
    base = statistics.median(taken["plain"])
    print(f"{kind}: {UNLABELLED} + {LABELLED} rows of {TOKENS} tokens, width {width}, fp32")
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        print(f"  {name:7s} {median * 1e3:8.1f} ms   {median / base:5.2f} x plain")


def in_a_run(data: Path, task: str, precision: str, steps: int) -> None:
    """Prints what plain and reweighted steps take on the first batches of a run."""
    rows = draw_of(data, task, 1)
    with TemporaryDirectory() as folder:
        files = {"labelled": str(rows.labelled), "unlabelled": [str(rows.pool)]}
        given = {"task": task, "run_dir": f"{folder}/run", "data": files, "backbone": {"precision": precision}}
        with open_run(build_config("released", given), keep_features=False) as run:
            soft = torch.full((len(run.corpus), len(run.labels)), 1 / len(run.labels))
            material = Material(run.labelled, run.gold, run.corpus, soft)
            trainer = Trainer(run.new_classifier(1, None), student_recipe(run, 1, len(run.corpus)), material)
            pairs = zip(trainer.orders["unlabelled"][:steps], trainer.orders["meta"], strict=False)
            taken = [_both(trainer, *pair) for pair in pairs]
    plain, fused, *tokens = (list(column) for column in zip(*taken, strict=True))
    padded, joined, apart, real, both = map(sum, tokens)
    print(f"{task}, released, {precision}, {torch.get_num_threads()} threads, {steps} batches")
    for name, seconds in (("plain", plain), ("fused", fused)):
        print(f"  {name:7s} {statistics.median(seconds) * 1e3:8.1f} ms")
    print(f"  medians {statistics.median(fused) / statistics.median(plain):.2f}, sums {sum(fused) / sum(plain):.2f} x")
    print(f"  tokens: one pass {joined / padded:.2f}, passes apart {apart / padded:.2f}, real ones {both / real:.2f} x")
    print(f"  runs {'without' if trainer.model.row else 'with'} padding", flush=True)


def _both(trainer: Trainer, rows: np.ndarray, meta: np.ndarray) -> tuple[float, ...]:
    """Seconds of a plain and of a reweighted step; padded tokens of the plain one, of one pass and of passes apart, and
    real tokens of both steps.
    """
    material, model, parameters = trainer.material, trainer.model.train(), trainer.parameters
    assert material.unlabelled is not None
    assert material.soft is not None
    batch, labelled = material.unlabelled.batch(rows), material.labelled.batch(meta)
    began = time.perf_counter()
    loss = kl(material.soft[rows], model(batch)).mean()
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    between = time.perf_counter()
    step = Step(batch, material.soft[rows], labelled, material.gold[meta], pads=model.row is None)
    ENGINES["fused"](model, parameters, step)
    ended = time.perf_counter()
    along, apart = batch.company(labelled)
    joined, beside = batch.join(labelled.take(along)), labelled.take(apart)
    padded = batch.ids.numel(), batch.join(labelled).ids.numel(), joined.ids.numel() + beside.ids.numel()
    real = int(batch.lengths.sum())
    return between - began, ended - between, *padded, real, real + int(labelled.lengths.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", choices=["minilm", "roberta-base-sized", "both"], default="both")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "mnli"])
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.data:
        for task in options.tasks:
            in_a_run(options.data, task, options.precision, options.repeats)
        return
    widths = {"minilm": 32, "roberta-base-sized": 128}
    for kind, width in widths.items():
        if options.model in {kind, "both"}:
            compare(kind, width, options.repeats)


if __name__ == "__main__":
    main()
