"""The estimate of accuracy by hand and by simulation, and temperatures that make a model as sure as it may be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from listflow.pipeline.method.estimate import SPREAD, allowed, cooled, estimated
from listflow.pipeline.method.metrics import Estimate
from listflow.pipeline.method.mixture import temperature


def said(right: int, rows: int, sure: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits, gold classes) of ``rows`` of two classes, so many of them right, all equally ``sure``."""
    gold = torch.arange(rows) % 2
    named = torch.where(torch.arange(rows) < right, gold, 1 - gold)
    return sure * torch.eye(2)[named], gold


def accuracy_of(right: float, rows: int) -> Estimate:
    return Estimate((right + 2) / (rows + 4), 0, 1, int(right), rows)


def test_a_row_counts_half_for_being_right_and_half_for_its_probability() -> None:
    logits, gold = said(6, 8)
    found = estimated(logits, gold)
    assert (found.right, found.rows) == (6, 8)
    sure = torch.sigmoid(torch.tensor(3 / temperature(logits, gold))).item()
    both = (6 + 6 * sure + 2 * (1 - sure)) / 2
    assert found.accuracy == pytest.approx((both + 2) / 12)
    half = 1.6449 * (found.accuracy * (1 - found.accuracy) / 12 + SPREAD**2) ** 0.5
    assert (found.low, found.high) == (
        pytest.approx(max(0, found.accuracy - half)), pytest.approx(min(1, found.accuracy + half))
    )  # fmt: skip


@pytest.mark.parametrize("sure", [0.5, 4.0, 8.0])
def test_how_sure_all_of_them_are_changes_nothing(sure: float) -> None:
    """Their temperature takes it out again."""
    assert estimated(*said(22, 30, sure)).accuracy == pytest.approx(estimated(*said(22, 30)).accuracy, abs=0.02)


@pytest.mark.parametrize("right", [0, 30])
def test_an_interval_stays_within_nothing_and_all(right: int) -> None:
    found = estimated(*said(right, 30))
    assert 0 <= found.low < found.accuracy < found.high <= 1


@pytest.mark.parametrize("spread", [0.1, 2.0, 6.0])
def test_the_interval_covers_what_is_true_nine_times_in_ten(spread: float) -> None:
    """Of models that know some rows better than others, right in 52, 79 and 92 of 100."""
    rng = np.random.default_rng(1)
    many = 1 / (1 + np.exp(-np.abs(spread * rng.standard_normal(200_000))))
    found = []
    for _ in range(500):
        log_odds = spread * rng.standard_normal(30)
        gold = torch.from_numpy(rng.random(30) < 1 / (1 + np.exp(-log_odds))).long()
        found.append(estimated(torch.from_numpy(np.stack([0 * log_odds, log_odds], axis=1)), gold))
    assert np.mean([each.low <= many.mean() <= each.high for each in found]) >= 0.88
    assert np.mean([each.high - each.low for each in found]) <= 0.35


@pytest.mark.parametrize("right", [15, 21, 27])
def test_a_cooled_model_is_as_sure_as_the_labels_allow(right: int) -> None:
    logits, found = 8 * torch.randn(500, 4, generator=torch.Generator().manual_seed(1)), accuracy_of(right, 30)
    before = logits.softmax(-1).amax(-1).mean().item()
    at = cooled(logits, found)
    after = (logits / at).softmax(-1).amax(-1).mean().item()
    assert 1 < at <= 20
    assert after == pytest.approx(allowed(before, found), abs=1e-4)
    assert (right + 1) / 32 < after < before


def test_a_model_that_is_right_to_be_sure_stays_sure() -> None:
    assert allowed(0.99, accuracy_of(30, 30)) > 0.97
    assert allowed(0.99, accuracy_of(20, 30)) < 0.9


def test_a_model_is_never_made_surer_and_never_hotter_than_the_limit() -> None:
    logits = torch.randn(100, 4, generator=torch.Generator().manual_seed(1))
    assert cooled(0.1 * logits, accuracy_of(30, 30)) == 1.0
    assert cooled(1000 * logits, accuracy_of(0, 30)) == pytest.approx(20, rel=1e-6)
