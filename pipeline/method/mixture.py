"""Opinions of several views, mixed by what K labels can tell: a log-linear pool.

log p(c | x)  ~  sum_v w_v log softmax(z_v / T_v)_c

Every view's temperature T_v is that of the least negative log-likelihood (NLL) of the K labelled rows, each predicted
without its own label; so confidence is out of the comparison. Of two views the first one's weight is the mean of its
posterior over GRID, under PRIOR, with the likelihood of the same rows: few labels leave it near one half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
PRIOR = (0.1, 0.2, 0.4, 0.2, 0.1)
TEMPERATURES = tuple(0.3 * 40 ** (step / 29) for step in range(30))  # 0.3 to 12
FLOOR = 1e-3  # in a probability: no single row may decide
USUAL, ROWS_FOR_USUAL = 1.15, 60  # the temperature that is right where few labels tell, and how many rows it counts as


def nll(log_probabilities: Tensor, gold: Tensor) -> float:
    """The mean negative log-likelihood of gold classes (K,) in nats; 0.1 % of every probability is an equal share."""
    likely = log_probabilities.gather(1, gold.unsqueeze(1)).exp()
    return float(-(likely * (1 - FLOOR) + FLOOR / log_probabilities.shape[1]).log().mean())


def temperature(logits: Tensor, gold: Tensor) -> float:
    """The one of TEMPERATURES under which held-out logits (K, C) tell the most of their gold classes."""
    return min(TEMPERATURES, key=lambda t: nll((logits / t).log_softmax(-1), gold))


def shrunk(logits: Tensor, gold: Tensor) -> float:
    """The temperature of held-out logits (K, C), drawn to the usual one as far as K is small."""
    rows = len(gold)
    own = math.log(temperature(logits, gold)) if rows else 0.0
    return math.exp((rows * own + ROWS_FOR_USUAL * math.log(USUAL)) / (rows + ROWS_FOR_USUAL))


def mixed(logits: Sequence[Tensor], temperatures: Sequence[float], weights: Sequence[float]) -> Tensor:
    """(N, C) log-probabilities of the pool of views' logits, each (N, C)."""
    parts = zip(logits, temperatures, weights, strict=True)
    return torch.stack([w * (z / t).log_softmax(-1) for z, t, w in parts]).sum(0).log_softmax(-1)


def believed(first: Tensor, second: Tensor, gold: Tensor, temperatures: Sequence[float]) -> float:
    """The first view's weight in a pool of two, from held-out logits (K, C) of both."""
    scores = []
    for weight, prior in zip(GRID, PRIOR, strict=True):
        told = nll(mixed([first, second], temperatures, [weight, 1 - weight]), gold)
        scores.append(torch.tensor(prior).log() - len(gold) * told)
    posterior = torch.stack(scores).softmax(0)
    return float((posterior * torch.tensor(GRID)).sum())


def say(first: float, told: Sequence[float], classes: int, smallest: float) -> float:
    """The first view's weight among students, from its weight among teachers and the held-out NLL of both, in nats.

    A teacher's temperature makes it as sure as it is right. Students are equally sure, whatever their teachers knew, so
    that they weigh by it too: in proportion to weight times (log C - NLL), the information that the labels confirmed. 0
    where that is below ``smallest``, and 1 where the second one's would be.
    """
    known = [max(0.0, math.log(classes) - each) for each in told]
    shares = [first * known[0], (1 - first) * known[1]]
    mean = shares[0] / sum(shares) if sum(shares) else first
    return 0.0 if mean < smallest else 1.0 if mean > 1 - smallest else mean
