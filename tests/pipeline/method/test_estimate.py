"""The estimate of accuracy by hand and by simulation, and temperatures that make a model as sure as it may be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from listflow.pipeline.method.estimate import cooled, estimated, likely_right


def said(*classes: int, count: int = 2) -> torch.Tensor:
    """(N, count) logits that name ``classes``."""
    return 3.0 * torch.eye(count)[list(classes)]


def test_two_right_and_two_wrong_rows_are_added() -> None:
    found = estimated(said(0, 0, 1, 1), torch.tensor([0, 0, 0, 1]))
    assert (found.right, found.rows) == (3, 4)
    assert found.accuracy == 5 / 8
    half = 1.6449 * (5 / 8 * 3 / 8 / 8) ** 0.5
    assert (found.low, found.high) == (pytest.approx(5 / 8 - half), pytest.approx(5 / 8 + half))


@pytest.mark.parametrize("right", [0, 30])
def test_an_interval_stays_within_nothing_and_all(right: int) -> None:
    found = estimated(said(*[0] * right, *[1] * (30 - right)), torch.zeros(30, dtype=torch.long))
    assert 0 <= found.low < found.accuracy < found.high <= 1


@pytest.mark.parametrize("truth", [0.5, 0.75, 0.9])
def test_the_interval_covers_what_is_true_nine_times_in_ten(truth: float) -> None:
    rng = np.random.default_rng(1)
    found = [
        estimated(said(*(rng.random(30) < truth).astype(int)), torch.ones(30, dtype=torch.long)) for _ in range(2000)
    ]
    covered = np.mean([each.low <= truth <= each.high for each in found])
    assert covered >= 0.88
    assert np.mean([each.high - each.low for each in found]) <= 0.3


def test_classes_count_by_their_shares_of_the_pool() -> None:
    logits, gold = said(0, 0, 1, 0), torch.tensor([0, 0, 1, 1])  # all of class 0 right, half of class 1
    even, uneven = torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])
    assert likely_right(logits, gold, even) == pytest.approx((4 * 0.75 + 1) / 6)
    assert likely_right(logits, gold, uneven) == pytest.approx((4 * 0.95 + 1) / 6)
    seen_alone = likely_right(said(0, 0, 1, 0, count=3), gold, torch.tensor([0.45, 0.05, 0.5]))
    assert seen_alone == pytest.approx((4 * 0.95 + 1) / 6)


@pytest.mark.parametrize("sure", [0.4, 0.7, 0.9])
def test_a_cooled_model_is_as_sure_as_asked(sure: float) -> None:
    logits = 8 * torch.randn(500, 4, generator=torch.Generator().manual_seed(1))
    temperature = cooled(logits, sure)
    assert 1 < temperature <= 20
    assert (logits / temperature).softmax(-1).amax(-1).mean() == pytest.approx(sure, abs=1e-4)


def test_a_model_is_never_made_surer_and_never_hotter_than_the_limit() -> None:
    logits = torch.randn(100, 4, generator=torch.Generator().manual_seed(1))
    assert cooled(logits, 0.99) == 1.0
    assert cooled(1000 * logits, 0.1) == pytest.approx(20, rel=1e-6)
