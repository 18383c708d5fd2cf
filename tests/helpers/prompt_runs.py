"""Finished runs of prompt tuning, for the tests of intrinsic prompt tuning."""

from __future__ import annotations

from pathlib import Path

from tiny import tiny_overlay

from listflow.pipeline.pretraining.msf import SubspaceConfig
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.stages.config import Intrinsic
from listflow.pipeline.stages.ipt import pinned

TOKENS, DIM = 3, 4
SMALL = SubspaceConfig(dim=DIM, hidden=16, steps=20, prompts=4, batch=4)


def prompt_run(files: dict[str, Path], folder: Path, seed: int = 1, **stage: object) -> Path:
    """A finished run of prompt tuning."""
    overlay = tiny_overlay(files, folder) | {"stage": {"kind": "soft_prompt", "tokens": TOKENS} | stage, "seed": seed}
    self_train(build_config("fast", overlay, {"teacher": {"learning_rate": 0.05}, "student": {"learning_rate": 0.05}}))
    return folder


def other_task(files: dict[str, Path], folder: Path) -> dict[str, Path]:
    """The same files under a task of another name."""
    task = folder / "other.yaml"
    task.write_text('name: other\ntemplate: "{text} the plot {mask} ."\nlabels: {negative: poor, positive: fine}\n')
    return files | {"task": task}


def ipt_stage(space: Path, **values: str) -> Intrinsic:
    return pinned(Intrinsic(subspace=str(space), tokens=TOKENS, **values))
