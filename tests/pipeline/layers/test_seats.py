"""Every token has one seat, and finds back from it."""

from __future__ import annotations

import pytest
import torch

from listflow.pipeline.layers.seats import TOKENS_STEP, Seats

LENGTHS = torch.tensor([3, 19, 7, 1, 19])
ATTENTION = (torch.arange(19) < LENGTHS[:, None]).long()


@pytest.mark.parametrize(("multiple", "wide"), [(1, 19), (8, 24), (32, 32)])
def test_every_token_has_one_seat(multiple: int, wide: int) -> None:
    seats = Seats.of(ATTENTION, multiple)
    assert len(seats.whole.laid) == len(LENGTHS) * wide
    assert seats.real == LENGTHS.sum()
    assert seats.whole.laid[seats.back[: seats.real]].tolist() == list(range(seats.real))
    assert len(seats.places) == len(seats.back) == 64
    assert len(seats.places) % TOKENS_STEP == 0
    assert seats.whole.hidden is not None
    assert (~seats.whole.hidden).sum() == LENGTHS.sum()
    hidden = torch.rand(5, 19, 2) * ATTENTION[..., None]
    assert torch.equal(seats.padded(seats.tokens(hidden)), hidden)
    assert Seats.of(torch.ones(2, 16, dtype=torch.int64), 16).whole.hidden is None


def test_groups_are_of_like_lengths_and_give_every_token_back() -> None:
    seats = Seats.of(ATTENTION, 8, grouped=True)
    assert [(group.texts, len(group.laid) // group.texts) for group in seats.groups] == [(3, 8), (2, 24)]
    tokens = torch.rand(len(seats.places), 4)
    found = seats.taken_back([group.of(tokens) for group in seats.groups])
    assert torch.equal(found[: seats.real], tokens[: seats.real])
    alike = Seats.of(ATTENTION, 32, grouped=True)
    assert alike.groups == [alike.whole]


def test_a_mask_is_added_and_leaves_what_is_seen_as_it_is() -> None:
    whole = Seats.of(ATTENTION, 8).whole
    for dtype in (torch.float32, torch.bfloat16):
        scores, mask = torch.randn(5, 2, 3, 24).to(dtype), whole.mask(dtype)
        assert mask is not None
        assert whole.hidden is not None
        assert torch.equal(scores + mask, scores.masked_fill(whole.hidden, float("-inf")))
    assert Seats.of(torch.ones(2, 16, dtype=torch.int64), 16).whole.mask(torch.float32) is None


def test_what_is_not_visible_is_not_seen() -> None:
    visible = ATTENTION.clone()
    visible[1, 4] = visible[2, 5] = 0
    for seats in (Seats.of(ATTENTION, 8, visible), Seats.of(ATTENTION, 8, visible, grouped=True)):
        away = [group.hidden for group in seats.groups]
        assert sum(int((~hidden).sum()) for hidden in away if hidden is not None) == visible.sum()
        tokens = torch.arange(len(seats.places)).float().unsqueeze(1)
        unseen = {
            int(token)
            for group, hidden in zip(seats.groups, away, strict=True)
            for token in group.of(tokens).squeeze(-1)[hidden[:, 0, 0]]  # type: ignore[index]
        }
        assert {3 + 4, 3 + 19 + 5} <= unseen
        assert seats.real == ATTENTION.sum()
