"""The algorithm of LiST's public script, in our own words, beside the presets `released` and `fast`: seconds a step.

    python benchmarks/reference.py DATA [--tasks sst2 mnli] [--threads 1] [--steps 12] [--precision fp32 auto]

One run, one backbone (the embedded one), the texts of DATA. The public algorithm pads every batch to 128 tokens, asks
the teacher about every batch, trains adapters and the whole masked-LM head with its decoder over all words, unrolls a
step of all of these with `higher` for the meta weights of 16 rows and passes them a second time, with dropout, for the
loss; in fp32, as the script does. Ours are the trainings that a run makes, in fp32 and in what `precision=auto` takes
here, and the teacher's labels of the rows that a step sees are counted with it. Printed are medians, how they are to
the reference, and the same for a whole run of six rounds on 3,000 rows, by the steps that each takes; reading rows,
and labels of each round, are counted with it.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peer_data import draw_of
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Batch
from listflow.pipeline.backbone.layers import upper
from listflow.pipeline.method.reweight import kl
from listflow.pipeline.model.classifier import Classifier, logits_of
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.run import Run
from listflow.pipeline.stages.attach import attach_all
from listflow.pipeline.stages.config import AnyStage
from listflow.pipeline.training.models import student_recipe, teacher_recipe
from listflow.pipeline.training.trainer import Material, Tick, Trainer

WIDTH, UNLABELLED, LABELLED, ROUNDS, POOL = 128, 16, 4, 6, 3000
RATE = 5e-6
# Of a round of the public script at K = 30: 50 epochs of labelled batches of 4, 600 KD and 400 meta steps, 50 epochs.
PUBLIC = {"teacher": 400, "warmup": 600, "reweighted": 400, "tail": 400}
PHASES = ("tail", "warmup", "reweighted")
Seconds = dict[str, list[float]]
WordIds = Sequence[Sequence[int]]


class PublicModel(nn.Module):
    """Adapters in all layers, and the backbone's own masked-LM head on top, all of it trained: (B, C) logits.

    The layers are run as they are, with their padding and with torch's dropout; adapters begin as those of ``model``.
    """

    def __init__(self, model: Classifier, stages: Sequence[AnyStage], backbone: Backbone, words: WordIds) -> None:
        super().__init__()
        self.body = upper(backbone, 0)
        self.stage = attach_all(self.body, 0, backbone, stages, torch.Generator())
        self.stage.load_state_dict(model.stage.state_dict())
        family, whole = backbone.family, copy.deepcopy(backbone.model).requires_grad_(True)
        self.dense, self.norm = whole.get_submodule(family.head_dense), whole.get_submodule(family.head_norm)
        self.decoder = nn.Parameter(backbone.word_rows.detach().clone())
        self.bias = nn.Parameter(backbone.model.get_parameter(family.decoder_bias).detach().clone())
        self.words = [ids[0] for ids in words]

    def forward(self, batch: Batch) -> Tensor:
        """The whole vocabulary's logits at the mask, of which the label words' are read."""
        states = self.body(input_ids=batch.ids, attention_mask=batch.attention).last_hidden_state
        found = self.norm(F.gelu(self.dense(states[torch.arange(len(states)), batch.mask_at])))
        return F.linear(found, self.decoder, self.bias)[:, self.words].float()


@dataclass(frozen=True)
class Public:
    """The public algorithm's steps on a student, with a teacher that is asked about every batch."""

    student: PublicModel
    teacher: PublicModel
    optimiser: torch.optim.Optimizer

    def tail(self, labelled: Batch, gold: Tensor) -> None:
        """A step on labelled rows, of the teacher or of a student's tail."""
        self._step(F.cross_entropy(self.student.train()(labelled), gold))

    def warmup(self, unlabelled: Batch) -> None:
        """A step on the teacher's soft labels."""
        self._step(kl(self._soft(unlabelled), self.student.train()(unlabelled)).mean())

    def reweighted(self, unlabelled: Batch, labelled: Batch, gold: Tensor) -> None:
        """The same, every row by its meta weight."""
        soft = self._soft(unlabelled)
        weights = meta_weights(self.student.eval(), unlabelled, soft, labelled, gold)
        self._step((weights * kl(soft, self.student.train()(unlabelled))).sum())

    @torch.no_grad()
    def _soft(self, batch: Batch) -> Tensor:
        return self.teacher.eval()(batch).softmax(-1)

    def _step(self, loss: Tensor) -> None:
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimiser.step()
        loss.item()


def meta_weights(
    model: nn.Module, unlabelled: Batch, soft: Tensor, labelled: Batch, gold: Tensor, eps: float = 1e-6
) -> Tensor:
    """(B,): one step of SGD from weights of 0, unrolled over a copy of all parameters; Ren et al. 2018, eqs. 4 to 8."""
    import higher

    inner = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=RATE)
    unrolled = higher.innerloop_ctx(model, inner, copy_initial_weights=True)
    with sdpa_kernel(SDPBackend.MATH), unrolled as (fast, optimiser):
        example = torch.zeros(len(unlabelled), requires_grad=True)
        optimiser.step((example * kl(soft, fast(unlabelled))).sum())
        gradient = torch.autograd.grad(F.cross_entropy(fast(labelled), gold), example)[0]
    positive = (-gradient).clamp_min(0)
    return positive / (positive.sum() + eps)


def padded(batch: Batch, width: int = WIDTH) -> Batch:
    """``batch`` with all rows at ``width`` tokens, or as they are where they are longer."""
    beyond = max(0, width - batch.ids.shape[1])
    ids, attention = (F.pad(rows, (0, beyond)) for rows in (batch.ids, batch.attention))
    return replace(batch, ids=ids, attention=attention, hidden=None)


def reference(run: Run, steps: int) -> Iterator[tuple[str, float]]:
    """(kind, seconds) of ``steps`` of each kind, in turns, on rows as they come."""
    student, teacher = (
        PublicModel(run.new_classifier(number, None), run.config.stage, run.backbone, run.word_ids) for number in (1, 0)
    )
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    public, rng = Public(student, teacher, torch.optim.AdamW(trained, lr=RATE)), np.random.default_rng(0)
    for _ in range(steps):
        unlabelled = padded(run.corpus.batch(rng.choice(len(run.corpus), UNLABELLED, replace=False)))
        rows = rng.choice(len(run.gold), LABELLED, replace=False)
        labelled, gold = padded(run.labelled.batch(rows)), run.gold[rows]
        given: dict[str, tuple[Any, ...]] = {
            "tail": (labelled, gold), "warmup": (unlabelled,), "reweighted": (unlabelled, labelled, gold)
        }  # fmt: skip
        for kind in PHASES:
            began = time.perf_counter()
            getattr(public, kind)(*given[kind])
            yield kind, time.perf_counter() - began


@dataclass(frozen=True)
class Ours:
    """Of a view: seconds of its steps by kind, of a row that is read through the frozen layers, and of one labelled."""

    steps: Seconds
    read: float
    label: float
    counts: dict[str, int]
    batch: int

    def step(self, kind: str) -> float:
        """The median of a kind, with the teacher's labels of the rows that such a step sees."""
        return median(self.steps[kind]) + (0.0 if kind == "tail" else self.batch * self.label)

    def whole(self) -> float:
        """Seconds of six rounds and of the teacher; a row of the pool is read once, and labelled once a round."""
        rows = min(POOL, self.batch * (self.counts["warmup"] + self.counts["reweighted"]))
        rounds = sum(self.counts[kind] * median(self.steps[kind]) for kind in PHASES) + rows * self.label
        return ROUNDS * rounds + self.counts["teacher"] * median(self.steps["tail"]) + POOL * self.read


def ours(view: Run, steps: int) -> Ours:
    """What ``steps`` of each kind take that a view's student makes."""
    model, rows = view.new_classifier(0, None), len(view.corpus)
    began = time.perf_counter()
    if view.corpus.features is not None:
        np.asarray(view.corpus.features.values)
    read, began = (time.perf_counter() - began) / rows, time.perf_counter()
    soft = logits_of(model, view.corpus).softmax(-1)
    label, recipe = (time.perf_counter() - began) / rows, student_recipe(view, 1, rows)
    few = replace(recipe, phases=tuple((phase, steps) for phase, _ in recipe.phases))
    trainer = Trainer(view.new_classifier(1, None), few, Material(view.labelled, view.gold, view.corpus, soft))
    taken, ends = dict[str, list[float]](), [time.perf_counter()]

    def on_step(tick: Tick) -> None:
        taken.setdefault(tick.phase, []).append(time.perf_counter() - ends[-1])
        ends.append(time.perf_counter())

    trainer.run(on_step)
    # The text view's teacher is worked out in seconds, and has no steps.
    counts = {"teacher": 0 if view.face else teacher_recipe(view, len(view.gold)).steps} | dict(recipe.phases)
    return Ours(taken, read, label, counts, recipe.batch)


def compare(data: Path, task: str, steps: int, precisions: Sequence[str]) -> None:
    """Prints a table of one task."""
    rows = draw_of(data, task, 1)
    print(f"{task}, {torch.get_num_threads()} threads, medians of {steps} steps; load {os.getloadavg()[0]:.1f}")
    public: dict[str, float] = {}
    for precision, preset in product(precisions, ("released", "fast")):
        with TemporaryDirectory() as folder:
            few = Path(folder) / "pool.jsonl"
            lines = rows.pool.read_text("utf-8").splitlines(keepends=True)[: 2 * steps * UNLABELLED]
            few.write_text("".join(lines), "utf-8")
            files = {"labelled": str(rows.labelled), "unlabelled": [str(few)]}
            given = {"task": task, "run_dir": f"{folder}/run", "data": files, "backbone": {"precision": precision}}
            with open_run(build_config(preset, given)) as run:
                public = public or _public(run, steps)
                found = [ours(view, steps) for view in run.views]
                name = f"{preset} {run.backbone.dtype_name}"
        for kind in PHASES:
            for face, view in zip(("", ", text"), found, strict=False):
                _print(name + face, kind, 1e3 * view.step(kind), "ms", view.step(kind) / public[kind])
        seconds = sum(view.whole() for view in found)
        _print(name, "six rounds", seconds, "s", seconds / public["six rounds"])


def _public(run: Run, steps: int) -> dict[str, float]:
    taken: Seconds = {}
    for kind, seconds in reference(run, steps):
        taken.setdefault(kind, []).append(seconds)
    found = {kind: median(each) for kind, each in taken.items()}
    rounds = ROUNDS * sum(PUBLIC[kind] * found[kind] for kind in PHASES)
    found["six rounds"] = PUBLIC["teacher"] * found["tail"] + rounds
    for kind, seconds in found.items():
        scale, unit = (1, "s") if kind == "six rounds" else (1e3, "ms")
        _print("public algorithm", kind, scale * seconds, unit, 1.0)
    return found


def _print(name: str, kind: str, value: float, unit: str, ratio: float) -> None:
    print(f"  {name:22} {kind:12} {value:10.1f} {unit:2}   {ratio:.4f} x", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "mnli"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--precision", nargs="+", default=["fp32", "auto"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for task in options.tasks:
        compare(options.data, task, options.steps, options.precision)


if __name__ == "__main__":
    main()
