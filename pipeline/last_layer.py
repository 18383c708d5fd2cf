"""The last layer at the mask position alone, for heads that read nothing else.

Every token still gives its key and value; only the mask asks, so the query, the output projection and the
feed-forward block cost one token a text instead of all of them. For layers of BERT's shape.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from listflow.pipeline.attention import SHAPED_LIKE_BERT, opened
from listflow.pipeline.backbone.backbone import Backbone


class OnlyMask(nn.Module):
    """Wraps a layer: hidden states (B, T, D) -> (B, 1, D), its output at ``mask_at`` (B,), or all of it without one."""

    def __init__(self, layer: Any, backbone: Backbone) -> None:
        super().__init__()
        self.layer = layer
        opened(layer, backbone)

    def forward(
        self, hidden: Tensor, attention_mask: Tensor | None = None, *_: Any, mask_at: Tensor | None = None, **__: Any
    ) -> Tensor:
        if mask_at is None:
            whole: Tensor = self.layer(hidden, attention_mask)
            return whole
        texts = torch.arange(len(hidden), device=hidden.device)
        asking = hidden[texts, mask_at].unsqueeze(1)
        if attention_mask is not None and attention_mask.shape[2] > 1:
            attention_mask = attention_mask[texts, :, mask_at].unsqueeze(2)
        heads, _ = self.layer.attention.self(hidden, attention_mask, asking)
        seen = self.layer.attention.output(heads, asking)
        return self.layer.output(self.layer.intermediate(seen), seen)


def narrow(view: nn.Module, backbone: Backbone) -> bool:
    """Replaces the last layer of ``view`` by ``OnlyMask``; False where the family's layers are of another shape."""
    if backbone.model.config.model_type not in SHAPED_LIKE_BERT:
        return False
    layers = view.get_submodule(backbone.layers_in_view)
    assert isinstance(layers, nn.ModuleList)
    layers[-1] = OnlyMask(layers[-1], backbone)
    return True
