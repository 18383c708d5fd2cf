"""Soft pseudo labels from a teacher's logits."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Prior = Literal["none", "labelled", "uniform"]


def soft_labels(logits: Tensor, temperature: float, prior: Tensor | None) -> Tensor:
    """softmax(logits / temperature), (N, C), after a shift that makes the mean prediction equal ``prior``."""
    shifted = logits if prior is None else logits + shift_to(logits, prior)
    return (shifted / temperature).softmax(-1)


def class_prior(kind: Prior, gold: Tensor, classes: int) -> Tensor | None:
    """(C,) class shares to expect among unlabelled rows; labelled counts get one more of each (Laplace)."""
    if kind == "none":
        return None
    counts = torch.bincount(gold, minlength=classes).float() + 1 if kind == "labelled" else torch.ones(classes)
    return counts / counts.sum()


def shift_to(logits: Tensor, prior: Tensor, iterations: int = 100) -> Tensor:
    """(C,) logit shift under which the mean softmax of ``logits`` is ``prior``, by fixed-point iteration."""
    shift = torch.zeros_like(prior)
    for _ in range(iterations):
        mean = (logits + shift).softmax(-1).mean(0)
        shift = shift + prior.log() - mean.clamp_min(1e-9).log()
    return shift
