"""Views are mixed by what held-out rows say, with little trust in few of them."""

from __future__ import annotations

import math

import pytest
import torch

from listflow.pipeline.method.mixture import FLOOR, TEMPERATURES, USUAL, believed, mixed, nll, say, shrunk, temperature


def told(right: float, rows: int, seed: int, sure: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits (rows, 3) whose best class is the gold one in a share ``right`` of the rows, gold)."""
    generator = torch.Generator().manual_seed(seed)
    gold = torch.arange(rows) % 3
    best = torch.where(torch.rand(rows, generator=generator) < right, gold, (gold + 1) % 3)
    return sure * torch.nn.functional.one_hot(best, 3).float(), gold


def test_a_pool_of_one_is_that_one() -> None:
    logits, _ = told(0.7, 12, 0)
    assert torch.allclose(mixed([logits], [2.0], [1.0]), (logits / 2).log_softmax(-1))


def test_a_pool_is_the_weighted_mean_of_log_probabilities_normalised() -> None:
    one, two = torch.randn(5, 4), torch.randn(5, 4)
    wanted = 0.3 * (one / 2).log_softmax(-1) + 0.7 * two.log_softmax(-1)
    found = mixed([one, two], [2.0, 1.0], [0.3, 0.7])
    assert torch.allclose(found, wanted - wanted.logsumexp(-1, keepdim=True), atol=1e-6)
    assert torch.allclose(found.exp().sum(-1), torch.ones(5))


def test_no_single_row_decides() -> None:
    certain = torch.tensor([[0.0, -1e6]])
    assert nll(certain.log_softmax(-1), torch.tensor([1])) == pytest.approx(-math.log(FLOOR / 2), rel=1e-4)


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_a_temperature_takes_confidence_out_of_the_comparison(scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(4000, 3, generator=generator)
    gold = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)
    step = TEMPERATURES[1] / TEMPERATURES[0]
    assert temperature(scale * logits, gold) == pytest.approx(scale, rel=step - 0.99)


def test_few_rows_keep_the_usual_temperature() -> None:
    logits, gold = told(1.0, 6, 0)
    assert shrunk(logits[:0], gold[:0]) == pytest.approx(USUAL)
    own = temperature(logits, gold)
    assert own < shrunk(logits, gold) < USUAL


def test_equal_views_share_the_weight_and_a_useless_one_has_no_say() -> None:
    good, gold = told(0.9, 60, 2)
    same, _ = told(0.9, 60, 3)
    noise, _ = told(0.33, 60, 4)
    assert believed(good, good, gold, [1.0, 1.0]) == pytest.approx(0.5, abs=1e-5)
    assert 0.2 < believed(good, same, gold, [1.0, 1.0]) < 0.8
    worthless = temperature(noise, gold)
    assert believed(good, noise, gold, [1.0, worthless]) > 0.6
    assert believed(good, -good, gold, [1.0, 1.0]) > 0.95


def test_students_weigh_by_what_the_labels_confirmed_too() -> None:
    assert say(0.5, [0.2, 0.2], 4, 0.1) == pytest.approx(0.5)
    told = [math.log(4) - 0.3, math.log(4) - 0.9]
    assert say(0.5, told, 4, 0.1) == pytest.approx(0.25)
    assert say(0.4, told, 4, 0.1) == pytest.approx(0.4 * 0.3 / (0.4 * 0.3 + 0.6 * 0.9))
    # A view that knows nothing of the labelled rows has no say, whatever it is sure of.
    assert say(0.45, [math.log(3) + 0.1, 0.5], 3, 0.1) == 0.0
    assert say(0.55, [0.5, math.log(3)], 3, 0.1) == 1.0
    # Neither knows anything: there is nothing to tell them apart by.
    assert say(0.45, [2.0, 2.0], 3, 0.1) == pytest.approx(0.45)


def test_few_labels_leave_both_views_their_say() -> None:
    good, gold = told(1.0, 3, 0, sure=0.5)
    worse, _ = told(0.3, 3, 0, sure=0.5)
    assert 0.5 < believed(good, worse, gold, [1.0, 1.0]) < 0.9
