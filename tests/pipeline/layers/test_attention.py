"""The last layer at the mask alone gives what the whole of it gives there."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_backbone

from listflow.pipeline.backbone.layers import SHAPED_LIKE_BERT, upper
from listflow.pipeline.layers.attention import narrow


@pytest.mark.parametrize("attention_kind", ["eager", "sdpa"])
@pytest.mark.parametrize("family", sorted(SHAPED_LIKE_BERT))
@torch.no_grad()
def test_a_narrow_last_layer_gives_the_mask_row_of_the_whole_one(family: str, attention_kind: str) -> None:
    backbone = tiny_backbone(family)
    ids = torch.randint(5, 40, (3, 12), generator=torch.Generator().manual_seed(0))
    attention = (torch.arange(12) < torch.tensor([[12], [8], [12]])).long()
    backbone.model.set_attn_implementation(attention_kind)
    at = torch.tensor([2, 7, 11])
    for seen in (attention, torch.ones_like(attention)):
        whole = backbone.view()(input_ids=ids, attention_mask=seen).last_hidden_state[torch.arange(3), at]
        view = upper(backbone, 0)
        assert narrow(view, backbone)
        row = view(input_ids=ids, attention_mask=seen, mask_at=at).last_hidden_state
        assert row.shape == (3, 1, 32)
        torch.testing.assert_close(row[:, 0], whole, rtol=1e-5, atol=1e-5)


def test_other_families_keep_their_last_layer_whole() -> None:
    backbone = tiny_backbone("modernbert")
    assert not narrow(backbone.view(), backbone)
