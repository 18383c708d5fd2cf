"""Soft pseudo labels from a teacher's logits."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_labels(logits: Tensor, temperature: float, prior: Tensor | None) -> Tensor:
    """softmax(logits / temperature), (N, C), shifted so that the mean soft label is ``prior`` where one is given.

    Students of students drift in their class bias, and sharpening feeds the drift; a prior that stays the same
    over the rounds stops it.
    """
    sharp = logits / temperature
    return (sharp if prior is None else sharp + shift_to(sharp, prior)).softmax(-1)


def class_prior(kind: str, gold: Tensor, first: Tensor) -> Tensor | None:
    """(C,) class shares to expect among unlabelled rows.

    ``teacher``: the mean prediction of the round-0 teacher, from its logits ``first`` (S, C) on the fixed sample;
    ``labelled``: the labelled counts, one more of each (Laplace); ``uniform``; None for ``none``.
    """
    classes = first.shape[1]
    if kind == "none":
        return None
    if kind == "teacher":
        return first.softmax(-1).mean(0)
    counts = torch.bincount(gold, minlength=classes).float() + 1 if kind == "labelled" else torch.ones(classes)
    return counts / counts.sum()


def shift_to(logits: Tensor, prior: Tensor, iterations: int = 100) -> Tensor:
    """(C,) logit shift under which the mean softmax of ``logits`` is ``prior``, by fixed-point iteration."""
    shift = torch.zeros_like(prior)
    for _ in range(iterations):
        mean = (logits + shift).softmax(-1).mean(0)
        shift = shift + prior.log() - mean.clamp_min(1e-9).log()
    return shift
