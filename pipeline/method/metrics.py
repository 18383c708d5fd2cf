"""How good and how sure: what is measured on test rows, between classifiers and on meta weights.

N rows, C classes. scikit-learn takes a second to import, so it is imported where something is measured: who predicts,
or labels a corpus, measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

CALIBRATION_BINS = 10


@dataclass(frozen=True)
class Metrics:
    """Accuracy, unweighted mean F1 over classes, and expected calibration error; each from 0 to 1."""

    accuracy: float
    macro_f1: float
    ece: float


@dataclass(frozen=True)
class Estimate:
    """The likely accuracy, 0 to 1, and the ends of its 90 % interval: ``right`` of ``rows`` that were held out."""

    accuracy: float
    low: float
    high: float
    right: int
    rows: int


@dataclass(frozen=True)
class Curve:
    """Accuracy, 0 to 1, by the number of ``labelled`` rows learned from, ascending.

    ``gain`` is what the last doubling brought, with its standard error over the rows that were asked about.
    """

    labelled: tuple[int, ...]
    accuracy: tuple[float, ...]
    gain: float
    error: float


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose confidence lies in [``lower``, ``upper``), the last bin with 1 itself.

    ``confidence`` and ``accuracy`` are means over these ``count`` rows; both are 0 in an empty bin.
    """

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class WeightStats:
    """``zero_share`` of all weights, 0 to 1; ``effective_sample_size`` in rows of a batch."""

    zero_share: float
    effective_sample_size: float


def measure(probabilities: ArrayLike, gold: ArrayLike) -> Metrics:
    """``Metrics`` of class probabilities (N, C) against gold class indices (N,).

    Macro F1 is over the classes that occur in ``gold`` or among the predictions. Raises ValueError when there
    are no rows or the shapes do not fit.
    """
    from sklearn.metrics import accuracy_score, f1_score

    given, truth = _checked(probabilities, gold)
    predicted = given.argmax(1)
    return Metrics(
        accuracy=float(accuracy_score(truth, predicted)),
        macro_f1=float(f1_score(truth, predicted, average="macro", zero_division=0)),
        ece=calibration_error(reliability(given, truth)),
    )


def reliability(probabilities: ArrayLike, gold: ArrayLike, bins: int = CALIBRATION_BINS) -> tuple[ReliabilityBin, ...]:
    """One ``ReliabilityBin`` for each of ``bins`` equal parts of 0..1, by the top probability of (N, C).

    Raises ValueError when there are no rows or the shapes do not fit.
    """
    given, truth = _checked(probabilities, gold)
    confidence, right = given.max(1), given.argmax(1) == truth
    edges = np.arange(bins + 1) / bins
    # Only inner edges: what rounding puts just above 1 belongs to the last bin.
    part = np.digitize(confidence, edges[1:-1])
    count = np.bincount(part, minlength=bins)
    confidence_sum = np.bincount(part, confidence, bins)
    right_sum = np.bincount(part, right, bins)
    rows = np.maximum(count, 1)
    table = zip(edges[:-1], edges[1:], count, confidence_sum / rows, right_sum / rows, strict=True)
    return tuple(ReliabilityBin(float(a), float(b), int(n), float(c), float(d)) for a, b, n, c, d in table)


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error: sum_b n_b / N * |accuracy_b - confidence_b| (arXiv 1706.04599, eq. 3)."""
    rows = sum(part.count for part in bins)
    return sum(part.count * abs(part.accuracy - part.confidence) for part in bins) / rows


def confusion(predicted: ArrayLike, gold: ArrayLike, classes: int) -> list[list[int]]:
    """Row counts as ``classes`` lists of ``classes``: line = gold class, column = predicted class."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(np.asarray(gold), np.asarray(predicted), labels=range(classes)).tolist()


def agreement(a: ArrayLike, b: ArrayLike) -> float:
    """Cohen's kappa of two sequences (N,) of classes: 1 is equal, 0 is chance, below 0 is less than chance.

    Equal sequences give 1 even when they hold one class only, where kappa is 0 / 0. Raises ValueError when
    the lengths differ or both are empty.
    """
    from sklearn.metrics import cohen_kappa_score

    first, second = np.asarray(a), np.asarray(b)
    if first.size and np.array_equal(first, second):
        return 1.0
    return float(cohen_kappa_score(first, second))


def weight_stats(weights: Sequence[ArrayLike]) -> WeightStats | None:
    """``WeightStats`` of the meta weights of a round, one (n,) array a step; None without steps.

    A step of weights w has the effective sample size (sum w)^2 / sum w^2, from 1 (one row counts) to n (all
    count the same), and 0 when every weight is 0 (Kish 1965); the steps are averaged.
    """
    steps = [np.asarray(step, dtype=np.float64) for step in weights]
    if not steps:
        return None
    return WeightStats(
        zero_share=float(np.mean(np.concatenate(steps) == 0)),
        effective_sample_size=float(np.mean([_kish(step) for step in steps])),
    )


def histogram(values: ArrayLike, bins: int = 20) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """(``bins`` + 1 edges, ``bins`` counts) of ``values`` in equal parts of 0..1, clipped to that range."""
    inside = np.clip(np.asarray(values, dtype=np.float64), 0, 1)
    counts, edges = np.histogram(inside, bins=bins, range=(0, 1))
    return tuple(edges.tolist()), tuple(counts.tolist())


def _checked(probabilities: ArrayLike, gold: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    given, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(gold, dtype=np.int64)
    if given.ndim != 2 or truth.shape != given.shape[:1] or not len(truth):
        shapes = f"{given.shape} and {truth.shape}"
        raise ValueError(f"expected probabilities (N, C) and gold (N,) with N > 0; got {shapes}.")
    return given, truth


def _kish(weights: NDArray[np.float64]) -> float:
    squares = float(np.square(weights).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0
