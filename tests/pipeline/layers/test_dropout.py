"""Dropout by shared random bits drops the share that it is asked for, and scales what stays and its gradient."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_backbone
from torch import nn

from listflow.pipeline.layers.dropout import STEPS, Dropout, random_bits, seed_dropout, with_own_dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_share_is_dropped_and_the_rest_scaled(share: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.full((301, 333), 2.0, dtype=dtype)  # an odd number of elements
    found = Dropout(share)(x)
    assert found.dtype == dtype
    gone, kept = found.unique().tolist()
    assert gone == 0
    assert kept == torch.tensor(2.0, dtype=dtype).mul(STEPS / (STEPS - round(share * STEPS))).item()
    count = x.numel()
    assert abs((found == 0).sum().item() - share * count) < 5 * (count * share * (1 - share)) ** 0.5


def test_a_seed_is_that_of_torch() -> None:
    torch.manual_seed(7)
    expected = Dropout(0.3)(torch.ones(40, 16)), torch.rand(3)
    seed_dropout(7, torch.device("cpu"))
    found = Dropout(0.3)(torch.ones(40, 16)), torch.rand(3)
    assert all(map(torch.equal, found, expected))


def test_columns_and_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(1)
    gone = (Dropout(0.3)(torch.ones(4000, 16)) == 0).float()
    assert (gone.mean(0) - 0.3).abs().max() < 5 * (0.21 / 4000) ** 0.5
    # Four numbers come of the same 64 bits.
    together = torch.corrcoef(gone.T) - torch.eye(16)
    assert together.abs().max() < 5 / 4000**0.5


def test_bits_are_uniform_over_all_values() -> None:
    torch.manual_seed(2)
    bits = random_bits(2**18 + 3)
    assert bits.shape == (2**18 + 3,)
    counts = torch.histc(bits.float(), 64, -(2**15), 2**15)
    assert ((counts - 4096) ** 2 / 4096).sum() < 63 + 5 * 126**0.5


def test_the_gradient_is_that_of_the_mask_that_was_drawn() -> None:
    torch.manual_seed(3)
    x = torch.rand(50, 20, requires_grad=True)
    found = Dropout(0.2)(x)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(gradient * x, found)


def test_a_seed_draws_the_same_masks_again() -> None:
    x, dropout = torch.rand(30, 7), Dropout(0.1)
    first, other = (torch.manual_seed(seed) and dropout(x) for seed in (4, 5))
    torch.manual_seed(4)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, other)


def test_nothing_is_dropped_in_evaluation_or_at_a_share_of_none() -> None:
    x = torch.rand(9, 5)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert not Dropout(1.0)(x).any()


def test_a_view_has_no_other_dropout() -> None:
    view = with_own_dropout(tiny_backbone().view())
    found = [module for module in view.modules() if isinstance(module, nn.Dropout)]
    assert found
    assert all(type(module) is Dropout for module in found)
