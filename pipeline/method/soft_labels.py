"""Soft pseudo labels from a teacher's logits, and the class prior that they are held at.

A teacher tuned on K rows is unsure of its class bias: the standard error of the labelled log odds of class c is
e_c = sqrt(1 / n_c + 1 / (K - n_c)), counts one more of each (Laplace). Where the shift that would give equal class
shares lies within a given number of e_c for every class, the labels cannot tell the shares from equal ones, and
equal ones are the better guess; beyond it the teacher knows better, and is believed. Later rounds are held at the
prior that results: students of students drift in their class bias, and sharpening would feed the drift.
"""

from __future__ import annotations

import torch
from torch import Tensor


def soft_labels(logits: Tensor, temperature: float, prior: Tensor | None) -> Tensor:
    """softmax(logits / temperature), (N, C), shifted so that the mean soft label is ``prior`` where one is given."""
    sharp = logits / temperature
    return (sharp if prior is None else sharp + shift_to(sharp, prior)).softmax(-1)


def teacher_prior(first: Tensor, gold: Tensor, temperature: float, errors: float) -> Tensor:
    """(C,) class shares to expect, from the round-0 teacher's logits ``first`` (S, C) on unlabelled rows.

    At the temperature of the labels: an unsure teacher's plain mean is nearer to equal shares than what it predicts.
    """
    equal = torch.full((first.shape[1],), 1 / first.shape[1])
    shift = shift_to(first, equal)
    within = (shift - shift.mean()).abs() <= errors * standard_errors(gold, first.shape[1])
    return equal if bool(within.all()) else (first / temperature).softmax(-1).mean(0)


def standard_errors(gold: Tensor, classes: int) -> Tensor:
    """(C,) standard error of each class's labelled log odds."""
    counts = torch.bincount(gold, minlength=classes).float() + 1
    return (1 / counts + 1 / (counts.sum() - counts)).sqrt()


def shift_to(logits: Tensor, prior: Tensor, iterations: int = 100) -> Tensor:
    """(C,) logit shift under which the mean softmax of ``logits`` is ``prior``, by fixed-point iteration."""
    shift = torch.zeros_like(prior)
    for _ in range(iterations):
        mean = (logits + shift).softmax(-1).mean(0)
        shift = shift + prior.log() - mean.clamp_min(1e-9).log()
    return shift
