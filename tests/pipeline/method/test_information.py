"""What the pool tells: the formula's gradient, shares that few labels cannot bend, maps that never meet."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from listflow.pipeline.method.information import BIT, ENTROPY, SCALE, Labelled, Maps, refined, shares_of


def clusters(rows: int, classes: int, seed: int, apart: float = 1.5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(unit features (rows, 8) around a centre for each class, the class of each, the centres (classes, 8))."""
    generator = torch.Generator().manual_seed(seed)
    centres = F.normalize(torch.randn(classes, 8, generator=generator), dim=-1)
    gold = torch.arange(rows) % classes
    noise = torch.randn(rows, 8, generator=generator) / math.sqrt(8)
    return F.normalize(apart * centres[gold] + noise, dim=-1), gold, centres


def test_the_first_step_goes_down_the_formula() -> None:
    pool, gold, centres = clusters(90, 3, 0)
    labelled = Labelled(pool[:6], gold[:6], torch.ones(1, 6))
    shares = torch.tensor([[0.5, 0.3, 0.2]])
    weight, bias = centres[None].clone().requires_grad_(), torch.zeros(1, 3, requires_grad=True)
    p = (SCALE * pool @ weight[0].T + bias[0]).softmax(-1)
    mean = p.mean(0)
    loss = 0.5 * F.cross_entropy(SCALE * pool[:6] @ weight[0].T + bias[0], gold[:6])
    loss = loss + BIT * math.log2(3) * (mean * (mean / shares[0]).log()).sum() - ENTROPY * (p * p.log()).sum(-1).mean()
    wanted = torch.autograd.grad(loss, [weight, bias])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("listflow.pipeline.method.information.STEPS", 1)
        found = refined(Maps(centres[None], torch.zeros(1, 3)), labelled, pool, shares, rate=1e-3, fit=0.5)
    # Adam's first step is the rate against the sign of the gradient, where that is not next to nothing.
    for moved, gradient in zip((found.weight - centres[None], found.bias), wanted, strict=True):
        clear = gradient.abs() > 1e-3
        assert clear.float().mean() > 0.5
        assert torch.allclose(moved[clear], -1e-3 * gradient[clear].sign(), atol=1e-5)


def test_maps_in_one_tensor_never_meet() -> None:
    pool, gold, centres = clusters(60, 3, 1)
    seen = torch.ones(2, 9)
    seen[1, :3] = 0
    starts = Maps(torch.stack([centres, centres.roll(1, 0)]), torch.zeros(2, 3))
    shares = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
    both = refined(starts, Labelled(pool[:9], gold[:9], seen), pool, shares)
    for i in range(2):
        own = Maps(starts.weight[i : i + 1], starts.bias[i : i + 1])
        alone = refined(own, Labelled(pool[:9], gold[:9], seen[i : i + 1]), pool, shares[i : i + 1])
        assert torch.allclose(both.weight[i], alone.weight[0], atol=1e-6)


def test_gradients_that_an_interrupt_left_off_are_of_no_account() -> None:
    pool, gold, centres = clusters(60, 3, 1)
    labelled, start = Labelled(pool[:9], gold[:9], torch.ones(1, 9)), Maps(centres[None], torch.zeros(1, 3))
    shares = torch.full((1, 3), 1 / 3)
    with torch.no_grad():
        found = refined(start, labelled, pool, shares)
        assert not torch.is_grad_enabled()
    assert torch.equal(found.weight, refined(start, labelled, pool, shares).weight)
    assert not found.weight.requires_grad


def test_a_pool_of_clusters_mends_a_start_that_is_off() -> None:
    pool, gold, centres = clusters(300, 3, 2)
    off = F.normalize(centres + 0.9 * centres.roll(1, 0), dim=-1)
    start = Maps(off[None], torch.zeros(1, 3))
    labelled = Labelled(pool[:6], gold[:6], torch.ones(1, 6))
    before = (start(pool)[0].argmax(-1) == gold).float().mean()
    moved = refined(start, labelled, pool, torch.full((1, 3), 1 / 3), rate=1e-2)
    assert (moved(pool)[0].argmax(-1) == gold).float().mean() > before + 0.02


def test_shares_follow_the_pool_as_far_as_labels_allow() -> None:
    logits = torch.zeros(1, 100, 2)
    logits[0, :90, 0] = 5
    logits[0, 90:, 1] = 5
    few, many = (shares_of(logits, torch.full((1, 2), float(rows)))[0, 0].item() for rows in (1, 1000))
    assert 0.6 < few < 0.75
    assert many == pytest.approx(0.9, abs=0.01)
    assert shares_of(logits, torch.tensor([[3.0, 5.0]])).sum().item() == pytest.approx(1)
