"""Runs of two views, as small as those of one in tiny.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny import sentences, tiny_overlay, write_jsonl

from listflow.pipeline.method.metrics import Metrics
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.presets import build_config

STUDENT = {"steps": 6, "batch": 6, "warmup": 0.5, "tail_epochs": 1, "tail_batch": 4}


def committee_overlay(files: dict[str, Path], run_dir: Path) -> dict[str, object]:
    """``tiny_overlay`` for a run of two views, which both have a say whatever they know."""
    own = {"second": {"face": "text", "student": STUDENT}, "mixture": {"folds": 2, "smallest": 0.0}}
    return tiny_overlay(files, run_dir) | own


def committee_config(files: dict[str, Path], run_dir: Path, *overlays: dict[str, object]) -> RunConfig:
    """The configuration of a run of two views."""
    return build_config("fast", committee_overlay(files, run_dir), *overlays)


def more_labels(files: dict[str, Path], folder: Path, count: int = 12) -> dict[str, Path]:
    """``files`` with ``count`` labelled rows: enough for some to be held out."""
    return files | {"labelled": write_jsonl(folder / "labelled.jsonl", sentences(count, 1))}


def reached(metrics: Metrics | None) -> tuple[float, float] | None:
    """Accuracy and macro F1: a final model's probabilities are cooled, which changes its calibration error alone."""
    return metrics and (metrics.accuracy, metrics.macro_f1)


def believe(weight: float, patch: pytest.MonkeyPatch) -> None:
    """Lets the prompt view have ``weight`` in every run that is weighed, and the text view the rest."""
    for name in ("believed", "say"):
        patch.setattr(f"listflow.pipeline.training.committee.{name}", lambda *evidence: weight)


@contextmanager
def both_heard() -> Iterator[None]:
    """Runs inside the block have two views with a say, whatever tiny random models know."""
    with pytest.MonkeyPatch.context() as patch:
        believe(0.5, patch)
        yield
