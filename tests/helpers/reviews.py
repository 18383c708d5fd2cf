"""Runs whose reviews are open or answered."""

from __future__ import annotations

from pathlib import Path

from tiny import tiny_overlay

from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.run import Run
from listflow.pipeline.storage.review import (  # fmt: skip
    Asked,
    answer_review,
    parse_answers,
)
from listflow.pipeline.training.committee import weigh_views
from listflow.pipeline.training.review import ask
from listflow.pipeline.training.rounds import prompt_tune, pseudo_label


def config_of(files: dict[str, Path], folder: Path, *overlays: dict[str, object], **review: object) -> RunConfig:
    rounds = {"rounds": {"count": 3}}
    return build_config("fast", tiny_overlay(files, folder), rounds, {"review": {"rows": 5} | review}, *overlays)


def first_round(run: Run) -> Asked:
    """What round 1 of ``run`` asks."""
    for view in run.views:
        prompt_tune(view)
    weigh_views(run)
    pseudo_label(run, 1)
    asked = ask(run, 1)
    assert asked is not None
    return asked


def answered(config: RunConfig, count: int = 3, by: str = "ann") -> Asked:
    """Opens a run and answers its first round: its first ``count`` rows are of the other class."""
    with open_run(config) as run:
        asked = first_round(run)
    other = {"negative": "positive", "positive": "negative"}
    lines = [f"{row.row_id},{other[row.label]}" for row in asked.rows[:count]]
    answer_review(Path(str(config.run_dir)), parse_answers("\n".join(reversed(lines))), by)
    return asked
