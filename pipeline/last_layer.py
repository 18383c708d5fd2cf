"""The last layer at the mask position alone, for heads that read nothing else.

Every token still gives its key and value; only the mask asks, so the query, the output projection and the
feed-forward block cost one token a text instead of all of them. For layers of BERT's shape.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.backbone import Backbone

SHAPED_LIKE_BERT = frozenset({"bert", "roberta", "electra"})


class OnlyMask(nn.Module):
    """Wraps a layer: hidden states (B, T, D) -> (B, 1, D), the layer's output at ``mask_at`` (B,)."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self, hidden: Tensor, attention_mask: Tensor | None = None, *_: Any, mask_at: Tensor, **__: Any
    ) -> Tensor:
        texts = torch.arange(len(hidden), device=hidden.device)
        asking = hidden[texts, mask_at].unsqueeze(1)
        attention = self.layer.attention
        if attention_mask is not None and attention_mask.shape[2] > 1:
            attention_mask = attention_mask[texts, :, mask_at].unsqueeze(2)
        seen = attention.output(_attend(attention.self, asking, hidden, attention_mask), asking)
        return self.layer.output(self.layer.intermediate(seen), seen)


def narrow(view: nn.Module, backbone: Backbone) -> bool:
    """Replaces the last layer of ``view`` by ``OnlyMask``; False where the family's layers are of another shape."""
    if backbone.model.config.model_type not in SHAPED_LIKE_BERT:
        return False
    layers = view.get_submodule(backbone.layers_in_view)
    assert isinstance(layers, nn.ModuleList)
    layers[-1] = OnlyMask(layers[-1])
    return True


def _attend(own: Any, asking: Tensor, hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention (B, 1, D) of ``asking`` over ``hidden``, with the projections of ``own``."""

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, own.attention_head_size)).transpose(1, 2)

    query, key, value = heads(own.query(asking)), heads(own.key(hidden)), heads(own.value(hidden))
    scores = query @ key.transpose(-1, -2) * own.attention_head_size**-0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return (own.dropout(scores.softmax(-1)) @ value).transpose(1, 2).flatten(2)
