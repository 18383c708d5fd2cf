"""Every stage under every head, through whole runs: a killed and resumed one ends with the bytes of one that was not.

A preset that is added to ``STAGE_PRESETS`` is tested here without another line, unless a backbone of 32 dimensions
takes no more than small values of it, or it needs a file: then it has an entry in ``NEEDS`` (pseudo_token_models.py).
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from _pytest.mark import ParameterSet
from forks import ended
from pseudo_token_models import NEEDS, make_subspace
from step_killer import run_until_killed
from tiny import sentences, write_jsonl

from listflow.data.files import file_digest
from listflow.pipeline.backbone.backbone import Backbone, load_backbone
from listflow.pipeline.model.classifier import logits_of
from listflow.pipeline.model.config import AnyHead
from listflow.pipeline.results import finished
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.run import opening
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.run import Notify, Progress
from listflow.pipeline.self_training import self_train
from listflow.pipeline.stages.config import Unified
from listflow.pipeline.stages.presets import STAGE_PRESETS, stages
from listflow.pipeline.storage.checkpoint import load_tensors
from listflow.pipeline.training.rounds import load_model

COMPOSITE = "prefix + bitfit"
# The kinds that there are, read off the union that the configuration accepts.
HEADS = [head.model_fields["kind"].default for head in get_args(get_args(AnyHead)[0])]
PAIRS = [(stage, head) for stage in (*STAGE_PRESETS, COMPOSITE) for head in HEADS]

SMALL_HEADS: dict[str, dict[str, Any]] = {"ytuning": {"width": 16}}

# A student takes two steps of each phase. (round, step) at which runs are killed: in each of these phases.
KILLS = ((1, 4), (2, 5), (2, 2))
SIGKILLED = [("list", "verbalizer"), ("mam", "linear"), ("ptuning", "verbalizer"), (COMPOSITE, "ytuning")]
BYTES = ("weights.safetensors", "labels.parquet", "meta_weights.parquet", "predictions.parquet")


class Killed(BaseException):
    """As sudden as SIGKILL to the code above it, without the wait for a new process."""


@dataclass
class World:
    """Files, finished runs, and one frozen backbone that all runs of this file share; nothing may ever change it."""

    folder: Path
    files: dict[str, Any]
    backbone: Backbone
    checksum: str
    finished: dict[tuple[str, str], Path] = field(default_factory=dict)

    def overlay(self, stage: str, head: str, run_dir: Path) -> dict[str, Any]:
        parts = [{"kind": name, **self.values(name)} for name in stage.split(" + ")]
        return self.files | {
            "backbone": {"name": str(self.folder / "backbone"), "precision": "fp32", "device": "cpu"},
            "stage": parts if len(parts) > 1 else parts[0],
            "head": {"kind": head} | SMALL_HEADS.get(head, {}),
            "teacher": {"epochs": 1, "batch": 4},
            "student": {"steps": 4, "batch": 6, "warmup": 0.5, "tail_epochs": 1, "tail_batch": 4},
            "pseudo": {"confidence": 0},
            "reweight": {"batch": 4},
            "rounds": {"count": 2, "sample": 10},
            "checkpoint_seconds": 0,
            "run_dir": str(run_dir),
        }

    def values(self, name: str) -> dict[str, Any]:
        if name in NEEDS:
            return NEEDS[name](self.folder)
        return {"width": 4} if all(isinstance(part, Unified) for part in stages(name)) else {}

    def run(self, stage: str, head: str, run_dir: Path, notify: Notify = lambda progress: None) -> Path:
        self_train(build_config("fast", self.overlay(stage, head, run_dir)), notify)
        return run_dir

    def whole(self, stage: str, head: str) -> Path:
        """The folder of a run that nothing interrupted."""
        if (stage, head) not in self.finished:
            self.finished[stage, head] = self.run(stage, head, self.folder / f"{stage} {head}")
        return self.finished[stage, head]


@pytest.fixture(scope="module")
def world(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("every stage")
    shutil.copytree(tiny_files["backbone"], folder / "backbone")
    pool = write_jsonl(folder / "unlabelled.jsonl", sentences(24, 2, labelled=False))
    data = {"labelled": str(tiny_files["labelled"]), "unlabelled": [str(pool)]}
    backbone = load_backbone(str(folder / "backbone"), "fp32", "cpu")
    make_subspace(folder, backbone)
    with pytest.MonkeyPatch.context() as patch:
        for module in (opening, finished):
            patch.setattr(module, "load_backbone", lambda *given: backbone)
        yield World(folder, {"task": str(tiny_files["task"]), "data": data}, backbone, backbone.checksum())


def digests(run: Path) -> dict[str, str]:
    """sha256 of every file that must not depend on an interruption."""
    found = {str(path.relative_to(run)): file_digest(path) for name in BYTES for path in run.rglob(name)}
    assert len(found) == 3 + 1 + 2 + 2 + 1  # weights of teacher, students and final; labels, meta weights, predictions
    return found


def forget_students(run: Path, folder: Path) -> Path:
    """A copy of ``run`` as it was when its teacher was ready."""
    gone = shutil.ignore_patterns("round-0[12]", "final", "predictions.*", "report.*", "plots")
    return Path(shutil.copytree(run, folder, ignore=gone))


def killed_at(number: int, step: int, run: Path) -> Notify:
    """Interrupts after a step of which no checkpoint is written yet, when there is one of the step before."""

    def notify(now: Progress) -> None:
        if now.loss is not None and (now.round, now.done) == (number, step):
            assert len(list((run / f"round-{number:02d}").glob("*.step"))) == 1
            raise Killed

    return notify


def taken(world: World, stage: str, head: str, run: Path) -> list[tuple[int, int]]:
    """Resumes ``run`` to its end; (round, step) of every training step that this took."""
    seen: list[tuple[int, int]] = []
    world.run(stage, head, run, lambda now: seen.append((now.round, now.done)) if now.loss is not None else None)
    return seen


def check_resumed(world: World, stage: str, head: str, run: Path, number: int, step: int) -> None:
    """``run`` goes on with that very step of that round, and ends with the right bytes."""
    steps = taken(world, stage, head, run)
    assert steps[0] == (number, step)
    assert steps[-1] == (2, 6)
    assert digests(run) == digests(world.whole(stage, head))
    assert world.backbone.checksum() == world.checksum


def check_final_model(world: World, stage: str, head: str) -> None:
    """final/ predicts what the run wrote down, with the logits of the student that it was made from."""
    folder = world.whole(stage, head)
    predictor = Predictor.open(folder)
    texts = [row["text"] for row in sentences(24, 2, labelled=False)]
    table = pq.read_table(folder / "predictions.parquet")
    written = np.stack([table[f"p_{label}"].to_numpy() for label in predictor.labels], 1)
    np.testing.assert_allclose(predictor.probabilities(texts), written, rtol=0, atol=1e-6)
    config = build_config("fast", world.overlay(stage, head, folder))
    with open_run(config) as run:
        student = logits_of(load_model(run, run.teacher_of(3)), run.corpus)
        np.testing.assert_allclose(predictor.logits(texts), student.numpy(), rtol=0, atol=1e-6)
        for number in (0, 2):
            start = run.new_classifier(number, None)
            weights = load_tensors(run.round(number).weights)
            assert weights.keys() == start.tensors().keys()
            assert [name for name, value in start.tunable().items() if torch.equal(weights[name], value)] == []
    assert world.backbone.checksum() == world.checksum


def check(world: World, stage: str, head: str, folder: Path) -> None:
    place = PAIRS.index((stage, head))
    number, step = KILLS[(place + place // len(HEADS)) % len(KILLS)]
    run = forget_students(world.whole(stage, head), folder / "killed")
    with pytest.raises(Killed):
        world.run(stage, head, run, killed_at(number, step, run))
    check_resumed(world, stage, head, run, number, step + 1)  # a checkpoint is written on the way out
    check_final_model(world, stage, head)


def cases() -> Iterator[ParameterSet]:
    """All pairs; every stage has the first head and one other in the ordinary suite, and the rest in the long one."""
    for place, pair in enumerate(PAIRS):
        stage, head = divmod(place, len(HEADS))
        ordinary = head in {0, 1 + stage % (len(HEADS) - 1)}
        yield pytest.param(*pair, id="-".join(pair), marks=() if ordinary else pytest.mark.long)


@pytest.mark.parametrize(("stage", "head"), cases())
def test_a_killed_run_ends_with_the_same_model(world: World, stage: str, head: str, tmp_path: Path) -> None:
    check(world, stage, head, tmp_path)


def test_sigkill_changes_no_byte(world: World) -> None:
    orders = [
        (world.overlay(stage, head, world.folder / f"killed {number}"), *KILLS[number % len(KILLS)])
        for number, (stage, head) in enumerate(SIGKILLED)
    ]
    for order in orders:
        assert ended(run_until_killed, *order) == -signal.SIGKILL, order
    for (overlay, number, step), (stage, head) in zip(orders, SIGKILLED, strict=True):
        check_resumed(world, stage, head, Path(overlay["run_dir"]), number, step)  # what a SIGKILL lost
