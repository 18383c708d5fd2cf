"""How much more labels would bring: accuracy on rows held out, of label vectors from a half and a quarter of the rest.

What is measured are label vectors from labels and names alone, weighed as those of all labels are: many of them are
made in a moment. Every subset is part of the next larger one, and every one is asked about the same rows, so that the
differences are less noisy than the accuracies. Subsets are drawn ORDERS times.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from listflow.pipeline.method.information import Labelled
from listflow.pipeline.method.label_vectors import Known, Weighed, candidates
from listflow.pipeline.method.metrics import Curve

ORDERS, HALVINGS = 4, 3
FEWEST = 8  # labelled rows that a point of the curve is made from
LARGEST = 2_000_000  # numbers in the maps of one recipe: beyond, fewer orders are drawn


def learning_curve(
    known: Known, weighed: Sequence[Weighed], folds: Sequence[np.ndarray], rng: np.random.Generator
) -> Curve | None:
    """The curve of the labelled rows of ``known``, each of ``folds`` predicted without itself; candidates as weighed.

    None where not even two points have FEWEST rows and a row for every class.
    """
    sizes = _sizes(len(known.gold), folds, known.classes)
    if len(sizes) < 2:
        return None
    orders = _orders(known, len(folds) * len(sizes))
    seen = torch.cat([_subsets(known.gold.numpy(), folds, sizes, rng) for _ in range(orders)])
    rows = [torch.from_numpy(fold) for fold in folds]
    said = _said(known, weighed, seen).view(orders, len(folds), len(sizes), len(known.gold), known.classes)
    hits = (said.argmax(-1) == known.gold).double().mean(0)  # (folds, sizes, K): the share of orders that are right
    by_row = torch.cat([hits[fold][:, held] for fold, held in enumerate(rows)], dim=1)
    last = by_row[-1] - by_row[-2]
    return Curve(tuple(sizes), tuple(by_row.mean(1).tolist()), float(last.mean()), float(last.std() / len(last) ** 0.5))


def _sizes(labelled: int, folds: Sequence[np.ndarray], classes: int) -> list[int]:
    most = labelled - max(map(len, folds), default=labelled)
    found = [most // 2**halving for halving in range(HALVINGS)]
    return [size for size in reversed(found) if size >= max(FEWEST, classes)]


def _orders(known: Known, refits: int) -> int:
    return max(1, min(ORDERS, LARGEST // (refits * known.classes * known.labelled.shape[1])))


def _subsets(gold: np.ndarray, folds: Sequence[np.ndarray], sizes: Sequence[int], rng: np.random.Generator) -> Tensor:
    """(folds x sizes, K) which rows each refit sees: of an order in which the classes take turns, the first ones."""
    seen = torch.zeros(len(folds), len(sizes), len(gold))
    for fold, held in enumerate(folds):
        order = rng.permutation(len(gold))
        order = order[~np.isin(order, held)]
        turn = np.zeros(len(gold), int)
        for c in np.unique(gold):
            turn[order[gold[order] == c]] = np.arange((gold[order] == c).sum())
        order = order[np.argsort(turn[order], kind="stable")]
        for place, size in enumerate(sizes):
            seen[fold, place, order[:size]] = 1
    return seen.flatten(0, 1)


def _said(known: Known, weighed: Sequence[Weighed], seen: Tensor) -> Tensor:
    """(B, K, C) what the mixture says of the labelled rows, for each line of ``seen`` (B, K)."""
    made = candidates(known, Labelled(known.labelled, known.gold, seen), known.recipes(with_pool=False))
    parts = {each.name: each.weight / each.temperature for each in weighed}
    return torch.stack([parts[name] * maps(known.labelled) for name, maps in made.items()]).sum(0)
