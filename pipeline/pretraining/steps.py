"""What trainings before a run share: a file that the rest of one can go on from, and a rate that rises and falls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from listflow.data.errors import InputError
from listflow.pipeline.storage.checkpoint import load_checked, save_checked
from listflow.pipeline.training.trainer import take_over, training_tensors

Parameters = Mapping[str, nn.Parameter]


def save_steps(path: Path, step: int, parameters: Parameters, optimiser: torch.optim.Optimizer) -> None:
    """Weights and moments after ``step`` steps; in one file, so that they are never of two steps."""
    save_checked(path, {"step": torch.tensor(step), **training_tensors(parameters, optimiser)})


def restore_steps(path: Path, parameters: Parameters, optimiser: torch.optim.Optimizer) -> int:
    """The number of steps that the file at ``path`` has behind it, now taken over; 0 without one, or a damaged one."""
    try:
        tensors = load_checked(path)
    except InputError:
        return 0
    take_over(tensors, parameters, optimiser)
    return int(tensors["step"])


def warmed_rate(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate at ``step``: up over a share ``warmup`` of the steps, then down in a line to 0."""
    rising = round(warmup * steps)
    return (step + 1) / rising if step < rising else (steps - step) / (steps - rising)
