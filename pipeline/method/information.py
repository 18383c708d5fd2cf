"""What a pool tells of classes: transductive information maximisation (TIM, arXiv 2008.11297) on linear maps.

From a start (W, b), a few Adam steps go down

    a CE(labelled) + k KL(mean prediction over the pool || shares) + 0.1 mean entropy over the pool

with k = 0.15 log2 C, a = min(1, K / 600): few labels are in the start already, and fitting them again costs what they
do not say. The shares are those that the start sees in the pool, not equal ones (alpha-TIM, arXiv 2204.11181). B maps,
such as one a fold and candidate, are refined in one tensor; none knows of the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

SCALE = 10.0
STEPS, RATE = 60, 1e-3
BIT, ENTROPY = 0.15, 0.1
LABELS_THAT_COUNT = 600


@dataclass(frozen=True)
class Maps:
    """B linear maps of features to logits: ``weight`` (B, C, F), ``bias`` (B, C); z = SCALE e W^T + b."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """(B, N, C) logits of (N, F) features."""
        count, classes, size = self.weight.shape
        product = features @ self.weight.reshape(count * classes, size).T
        return SCALE * product.view(-1, count, classes).transpose(0, 1) + self.bias[:, None]


@dataclass(frozen=True)
class Labelled:
    """Features (K, F) and classes of the labelled rows, and how much each map may see of each, (B, K)."""

    features: Tensor
    gold: Tensor
    seen: Tensor

    def counts(self, classes: int) -> Tensor:
        """(B, C) rows of each class that each map sees."""
        return self.seen @ one_hot(self.gold, classes).float()


def shares_of(logits: Tensor, counts: Tensor) -> Tensor:
    """(B, C) class shares of the pool, from its rows' best classes by logits (B, N, C).

    Drawn by C / K to the shares of the labelled rows, of which each class has ``counts`` (B, C): few labels cannot
    tell the shares of many classes.
    """
    classes = logits.shape[-1]
    best = one_hot(logits.argmax(-1), classes).float().mean(1)
    rows = counts.sum(1, keepdim=True)
    return (rows * best + classes * (counts + 1) / (rows + classes)) / (rows + classes)


# An interrupt may come between the lines of ``torch.no_grad`` and leave gradients off in this process.
@torch.enable_grad()
def refined(
    start: Maps, labelled: Labelled, pool: Tensor, shares: Tensor, rate: float = RATE, fit: float | None = None
) -> Maps:
    """``start`` after STEPS full-batch steps on labelled rows and ``pool`` (N, F), held at ``shares`` (B, C).

    ``fit`` takes the place of a, the weight of the labelled rows.
    """
    fit = min(1.0, len(labelled.gold) / LABELS_THAT_COUNT) if fit is None else fit
    weight, bias = (torch.zeros_like(part).requires_grad_() for part in (start.weight, start.bias))
    # The rate is outside, so that it scales the step of Adam and nothing else.
    optimiser = torch.optim.Adam([weight, bias], lr=1.0)
    for _ in range(STEPS):
        moved = Maps(start.weight + rate * weight, start.bias + rate * bias)
        optimiser.zero_grad()
        loss = fit * _missed(moved, labelled) + _uncertainty(moved(pool), shares)
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return Maps(start.weight + rate * weight, start.bias + rate * bias)


def _missed(maps: Maps, labelled: Labelled) -> Tensor:
    """The sum over maps of the mean cross-entropy of the rows that each sees."""
    log_p = maps(labelled.features).log_softmax(-1)[:, torch.arange(len(labelled.gold)), labelled.gold]
    return -(log_p * labelled.seen / labelled.seen.sum(1, keepdim=True).clamp_min(1)).sum()


def _uncertainty(logits: Tensor, shares: Tensor) -> Tensor:
    """The sum over maps of k KL(mean prediction || shares) + 0.1 mean entropy, of pool logits (B, N, C)."""
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    mean = p.mean(1).clamp_min(1e-9)
    apart = (mean * (mean / shares.clamp_min(1e-6)).log()).sum()
    return BIT * math.log2(shares.shape[1]) * apart - ENTROPY * (p * log_p).sum(-1).mean(1).sum()
