"""What trainings outside the rounds share: a rate that rises and falls, and a file that the rest can go on from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from listflow.data.errors import InputError
from listflow.pipeline.storage.checkpoint import load_checked, save_checked

Parameters = Mapping[str, nn.Parameter]


def save_steps(path: Path, step: int, parameters: Parameters, optimiser: torch.optim.Optimizer) -> None:
    """Weights and moments after ``step`` steps; in one file, so that they are never of two steps."""
    tensors = {"step": torch.tensor(step)}
    for name, parameter in parameters.items():
        tensors[f"weight/{name}"] = parameter.detach()
        tensors |= {f"{key}/{name}": value for key, value in optimiser.state[parameter].items()}
    save_checked(path, tensors)


def restore_steps(path: Path, parameters: Parameters, optimiser: torch.optim.Optimizer) -> int:
    """The number of steps that the file at ``path`` has behind it, now taken over; 0 without one, or a damaged one."""
    try:
        tensors = load_checked(path)
    except InputError:
        return 0
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[f"weight/{name}"])
        # AdamW counts its steps on the CPU.
        where = {"exp_avg": parameter.device, "exp_avg_sq": parameter.device, "step": torch.device("cpu")}
        kept = {key: f"{key}/{name}" for key in where if f"{key}/{name}" in tensors}
        optimiser.state[parameter] = {key: tensors[long].to(where[key]) for key, long in kept.items()}
    return int(tensors["step"])


def warmed_rate(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate at ``step``: up over a share ``warmup`` of the steps, then down in a line to 0."""
    rising = round(warmup * steps)
    return (step + 1) / rising if step < rising else (steps - step) / (steps - rising)
