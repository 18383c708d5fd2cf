"""How often a model is right, and how sure it may be, from K labelled rows, each predicted without its own label.

Two right and two wrong rows are added to those that are there: the "plus four" estimate and its interval (Agresti and
Coull, 1998, doi 10.1080/00031305.1998.10480550). They also stand for what the rows have been used for: which view to
believe, and how far, was chosen by the same predictions. A model is then cooled until it is as sure of the unlabelled
rows, on the mean, as it is likely to be right there: temperature scaling (arXiv 1706.04599) without a label of its own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from listflow.pipeline.method.metrics import Estimate

LEVEL, QUANTILE = 0.9, 1.6449  # of the normal interval, and its half-width in standard errors
ADDED = 2  # right rows, and as many wrong ones
HOTTEST, HALVINGS = 20.0, 40


def estimated(logits: Tensor, gold: Tensor) -> Estimate:
    """The accuracy that held-out logits (n, C) of gold classes (n,) tell."""
    rows, right = len(gold), int((logits.argmax(-1) == gold).sum())
    mean = (right + ADDED) / (rows + 2 * ADDED)
    half = QUANTILE * math.sqrt(mean * (1 - mean) / (rows + 2 * ADDED))
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), right, rows)


def likely_right(logits: Tensor, gold: Tensor, shares: Tensor) -> float:
    """The accuracy on rows whose classes have ``shares`` (C,): the held-out one of each class, weighed by them.

    One right and one wrong row are added. Classes without a held-out row are left out.
    """
    right = (logits.argmax(-1) == gold).double()
    counts = torch.bincount(gold, minlength=len(shares))
    sums = torch.zeros(len(shares), dtype=torch.float64).index_add_(0, gold, right)
    seen = counts > 0
    weights = shares.double()[seen] / shares.double()[seen].sum()
    mean = float((weights * sums[seen] / counts[seen]).sum())
    return (len(gold) * mean + 1) / (len(gold) + 2)


def cooled(logits: Tensor, sure: float) -> float:
    """The temperature, 1 to 20, under which the mean top probability of logits (N, C) is ``sure``; never below 1."""
    low, high = 0.0, math.log(HOTTEST)
    if _mean_top(logits, 1.0) <= sure:
        return 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _mean_top(logits, math.exp(middle)) > sure else (low, middle)
    return math.exp((low + high) / 2)


def _mean_top(logits: Tensor, temperature: float) -> float:
    return float((logits.double() / temperature).softmax(-1).amax(-1).mean())
