"""Self-attention of BERT's shape, written out: the same numbers, open to what a stage adds to its heads.

It takes over the projections of the backbone's own module under their own names, so that other stages still find
them, and lets fewer positions ask than are attended to.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import Backbone

SHAPED_LIKE_BERT = frozenset({"bert", "roberta", "electra"})


class SelfAttention(nn.Module):
    """(B, T, D) -> ((B, Q, D), None): softmax(q k^T / sqrt(d_h) + mask) v by head, then each of ``extras`` in turn.

    An extra takes queries (B, H, Q, d_h), the scores (B, H, Q, T) and the heads' output (B, H, Q, d_h), and returns
    a new output.
    """

    def __init__(self, own: Any) -> None:
        super().__init__()
        self.query, self.key, self.value, self.dropout = own.query, own.key, own.value, own.dropout
        self.head_size = int(own.attention_head_size)
        self.extras = nn.ModuleList()

    def forward(
        self, hidden: Tensor, attention_mask: Tensor | None = None, asking: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, None]:
        query = self._heads(self.query(hidden if asking is None else asking))
        scores = query @ self._heads(self.key(hidden)).transpose(-1, -2) * self.head_size**-0.5
        if attention_mask is not None:
            hidden_away = attention_mask.dtype == torch.bool
            scores = scores.masked_fill(~attention_mask, float("-inf")) if hidden_away else scores + attention_mask
        found = self.dropout(scores.softmax(-1)) @ self._heads(self.value(hidden))
        for extra in self.extras:
            found = extra(query, scores, found)
        return found.transpose(1, 2).flatten(2), None

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_size)).transpose(1, 2)


def opened(layer: Any, backbone: Backbone) -> SelfAttention:
    """The ``SelfAttention`` of ``layer``, put in the place of the backbone's own module on the first call.

    InputError for a family whose attention is of another shape.
    """
    kind = backbone.model.config.model_type
    if kind not in SHAPED_LIKE_BERT:
        raise InputError(
            f"the attention of a '{kind}' backbone takes no prefix and no narrow last layer; use a "
            f"{', '.join(sorted(SHAPED_LIKE_BERT))} backbone, or a stage at attention_output or ffn_output."
        )
    if not isinstance(layer.attention.self, SelfAttention):
        layer.attention.self = SelfAttention(layer.attention.self)
    found: SelfAttention = layer.attention.self
    return found
