"""Measures against cases worked out by hand."""

import numpy as np
import pytest

from listflow.pipeline.method.metrics import (
    WeightStats,
    agreement,
    calibration_error,
    confusion,
    histogram,
    measure,
    reliability,
    weight_stats,
)

# Top probabilities 0.95, 0.85, 0.85, 0.65 with one mistake, in the bin of 0.8 to 0.9.
PROBABILITIES = np.array([[0.95, 0.05], [0.15, 0.85], [0.85, 0.15], [0.35, 0.65]])
GOLD = np.array([0, 1, 1, 1])


def test_metrics_by_hand() -> None:
    metrics = measure(PROBABILITIES, GOLD)
    assert metrics.accuracy == 0.75
    # Class 0: precision 1/2, recall 1; class 1: precision 1, recall 2/3.
    assert metrics.macro_f1 == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert metrics.ece == pytest.approx((1 * 0.05 + 2 * 0.35 + 1 * 0.35) / 4)


def test_reliability_by_hand() -> None:
    bins = reliability(PROBABILITIES, GOLD)
    assert [part.count for part in bins] == [0, 0, 0, 0, 0, 0, 1, 0, 2, 1]
    assert (bins[8].lower, bins[8].upper, bins[8].accuracy) == (0.8, 0.9, 0.5)
    assert bins[8].confidence == pytest.approx(0.85)
    assert (bins[0].confidence, bins[0].accuracy) == (0, 0)
    assert calibration_error(bins) == measure(PROBABILITIES, GOLD).ece


def test_certain_and_right_is_perfect() -> None:
    metrics = measure(np.eye(3, dtype=np.float32)[[0, 1, 2]] * (1 + 1e-7), [0, 1, 2])
    assert (metrics.accuracy, metrics.macro_f1) == (1, 1)
    assert metrics.ece == pytest.approx(0, abs=1e-6)


def test_calibrated_probabilities_have_a_small_error() -> None:
    rng = np.random.default_rng(0)
    given = rng.dirichlet([1.0, 1.0, 1.0], 20_000)
    gold = (given.cumsum(1) < rng.random((20_000, 1))).sum(1)
    assert measure(given, gold).ece < 0.015


@pytest.mark.parametrize(("given", "gold"), [(np.ones((0, 2)), []), (np.ones((2, 2)), [1]), ([0.5, 0.5], [0, 1])])
def test_shapes_that_do_not_fit(given: object, gold: object) -> None:
    with pytest.raises(ValueError, match=r"expected probabilities \(N, C\)"):
        measure(given, gold)  # type: ignore[arg-type]


def test_confusion_has_a_row_per_gold_class_even_if_absent() -> None:
    assert confusion([0, 0, 2, 2], [0, 2, 2, 2], 4) == [[1, 0, 0, 0], [0] * 4, [1, 0, 2, 0], [0] * 4]


@pytest.mark.parametrize(
    ("a", "b", "kappa"),
    [
        ([0, 1, 0, 1], [0, 1, 0, 1], 1),
        ([1, 1, 1], [1, 1, 1], 1),
        ([1, 1, 1], [0, 0, 0], 0),
        ([0, 0, 1, 1], [0, 1, 0, 1], 0),
        ([0, 1], [1, 0], -1),
        ([0, 0, 0, 1], [0, 0, 1, 1], 0.5),
    ],
)
def test_kappa(a: list[int], b: list[int], kappa: float) -> None:
    assert agreement(a, b) == pytest.approx(kappa)


def test_kappa_of_nothing() -> None:
    with pytest.raises(ValueError, match="empty"):
        agreement([], [])


def test_effective_sample_size_closed_forms() -> None:
    assert weight_stats([np.full(16, 1 / 16)]) == WeightStats(0, 16)
    assert weight_stats([[1, 0, 0, 0]]) == WeightStats(0.75, 1)
    assert weight_stats([[0.5, 0.5, 0, 0], [0.25] * 4]) == WeightStats(0.25, 3)
    assert weight_stats([[0, 0]]) == WeightStats(1, 0)
    # Weights 1..n have (n + 1)^2 n^2 / 4 over n (n + 1) (2 n + 1) / 6.
    stats = weight_stats([np.arange(1, 11) / 55])
    assert stats is not None
    assert stats.effective_sample_size == pytest.approx(1.5 * 10 * 11 / 21)


def test_steps_may_differ_in_size_and_no_steps_is_none() -> None:
    assert weight_stats([[1.0], [0.5, 0.5, 0]]) == WeightStats(0.25, 1.5)
    assert weight_stats([]) is None


def test_histogram_keeps_every_value() -> None:
    edges, counts = histogram([0, 0, 0.1, 0.99, 1, 1 + 1e-7], bins=4)
    assert edges == (0, 0.25, 0.5, 0.75, 1)
    assert counts == (3, 0, 0, 3)
