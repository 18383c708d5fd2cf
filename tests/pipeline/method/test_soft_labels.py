"""Soft labels meet their prior, and the prior is what the labelled rows can tell."""

from __future__ import annotations

import torch

from listflow.pipeline.method.soft_labels import shift_to, soft_labels, standard_errors, teacher_prior


def test_soft_labels_meet_the_prior() -> None:
    logits = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([3.0, 0.0, -1.0])
    prior = torch.tensor([0.2, 0.5, 0.3])
    torch.testing.assert_close((logits + shift_to(logits, prior)).softmax(-1).mean(0), prior, atol=1e-4, rtol=0)
    assert torch.equal(soft_labels(logits, 1.0, None), logits.softmax(-1))
    torch.testing.assert_close(soft_labels(logits, 0.5, prior).mean(0), prior, atol=1e-4, rtol=0)


def test_prior_is_equal_shares_only_where_the_labels_cannot_tell() -> None:
    """Counts 3, 1 and Laplace: e = sqrt(1/4 + 1/2) for both, so log odds up to 2 e are no evidence."""
    gold = torch.tensor([0, 0, 0, 1])
    torch.testing.assert_close(standard_errors(gold, 2), torch.full((2,), (1 / 4 + 1 / 2) ** 0.5))
    bound = 2 * (1 / 4 + 1 / 2) ** 0.5
    inside, outside = torch.tensor([[bound - 0.01, 0.0]]), torch.tensor([[bound + 0.01, 0.0]])
    torch.testing.assert_close(teacher_prior(inside, gold, 0.5, 1.0), torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(teacher_prior(outside, gold, 0.5, 1.0), (outside[0] / 0.5).softmax(0))
    torch.testing.assert_close(teacher_prior(inside, gold, 1.0, 0.0), inside[0].softmax(0))
