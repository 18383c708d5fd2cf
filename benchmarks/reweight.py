"""One reweighted step, side by side in one run: ``fused`` and ``higher`` against a plain step of the same batch.

    python benchmarks/reweight.py [--repeats 9] [--threads 2] [--model minilm|roberta-base-sized|both]

A plain step is one forward and backward of the 16 pseudo-labelled rows with uniform weights; a reweighted step
also sees 4 labelled rows. Steps alternate, so that whatever else the machine does falls on all alike; the median
of the repeats is printed, and the ratio of medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from transformers import RobertaConfig, RobertaForMaskedLM

from listflow.pipeline.backbone import pretrained
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Batch
from listflow.pipeline.method.reweight import ENGINES, Step, kl
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.config import VerbalizerHead
from listflow.pipeline.stages.presets import stages

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", choices=["minilm", "roberta-base-sized", "both"], default="both")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    widths = {"minilm": 32, "roberta-base-sized": 128}
    for kind, width in widths.items():
        if options.model in {kind, "both"}:
            compare(kind, width, options.repeats)


if __name__ == "__main__":
    main()
