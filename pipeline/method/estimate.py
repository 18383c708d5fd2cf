"""How often a model is right, and how sure it may be, from K labelled rows, each predicted without its own label.

A row counts half for being right and half for the probability of its class, which is the steadier of both, after two
right and two wrong rows are added (the "plus four" interval of Agresti and Coull, 1998): these also stand for what the
rows were used for before, to choose which view to believe and how far. The interval is that of so many rows, widened
by what a model that is made again from other labels differs by. A model is then cooled, a temperature without a label
of its own (arXiv 1706.04599): its mean confidence on unlabelled rows becomes what the estimate says, not quite, for
where a model is sure of nearly every row it is often right to be.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from listflow.pipeline.method.metrics import Estimate
from listflow.pipeline.method.mixture import temperature

QUANTILE = 1.6449  # half the width of a 90 % interval of a normal distribution, in standard deviations
ADDED, SPREAD = 2, 0.05  # right rows and as many wrong ones; the standard deviation from model to model
BY_LABELS = 0.7  # of the log-odds that a model is cooled to; the rest is its own
HOTTEST, HALVINGS = 20.0, 40


def estimated(logits: Tensor, gold: Tensor) -> Estimate:
    """The accuracy that held-out logits (n, C) of gold classes (n,) tell."""
    rows, right = len(gold), logits.argmax(-1) == gold
    likely = (logits / temperature(logits, gold)).softmax(-1).gather(1, gold.unsqueeze(1))[:, 0]
    sum_of_both = float((right.double() + likely.double()).sum() / 2)
    mean = (sum_of_both + ADDED) / (rows + 2 * ADDED)
    half = QUANTILE * math.sqrt(mean * (1 - mean) / (rows + 2 * ADDED) + SPREAD**2)
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), int(right.sum()), rows)


def cooled(logits: Tensor, found: Estimate) -> float:
    """The temperature, 1 to 20, that makes logits (N, C) of unlabelled rows as sure on the mean as ``found`` allows."""
    sure, low, high = allowed(_mean_top(logits, 1.0), found), 0.0, math.log(HOTTEST)
    if _mean_top(logits, 1.0) <= sure:
        return 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _mean_top(logits, math.exp(middle)) > sure else (low, middle)
    return math.exp((low + high) / 2)


def allowed(confidence: float, found: Estimate) -> float:
    """The mean confidence that a model of this ``confidence`` may have: with one row added of each kind, not two."""
    by_labels = (found.accuracy * (found.rows + 2 * ADDED) - ADDED + 1) / (found.rows + 2)
    own = min(confidence, 1 - 1e-6)
    log_odds = BY_LABELS * torch.logit(torch.tensor(by_labels)) + (1 - BY_LABELS) * torch.logit(torch.tensor(own))
    return float(log_odds.sigmoid())


def _mean_top(logits: Tensor, at: float) -> float:
    return float((logits.double() / at).softmax(-1).amax(-1).mean())
