"""Self-attention of BERT's shape written out, so that stages can add to its heads; the last layer at the mask alone.

For a head that reads the mask alone the last layer is narrowed to it: every token still gives its key and value, but
only the mask asks, so the query, the output projection and the feed-forward block cost one token a text instead of
all of them.

Where a layer is called with ``Seats`` in place of an attention mask, hidden states (B, T, D) are (1, N, D): the tokens
of all texts in a row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.layers import SHAPED_LIKE_BERT
from listflow.pipeline.layers.seats import Seats, to_add


def narrow(view: nn.Module, backbone: Backbone) -> bool:
    """Replaces the last layer of ``view`` by ``OnlyMask``; False where the family's layers are of another shape."""
    if backbone.model.config.model_type not in SHAPED_LIKE_BERT:
        return False
    layers = view.get_submodule(backbone.layers_in_view)
    assert isinstance(layers, nn.ModuleList)
    layers[-1] = OnlyMask(layers[-1], backbone)
    return True


class OnlyMask(nn.Module):
    """Wraps a layer: hidden states (B, T, D) -> (B, 1, D), its output at ``mask_at`` (B,), or all of it without one."""

    def __init__(self, layer: Any, backbone: Backbone) -> None:
        super().__init__()
        self.layer = layer
        opened(layer, backbone)

    def forward(
        self, hidden: Tensor, attention_mask: Tensor | Seats | None = None, *_: Any,
        mask_at: Tensor | None = None, **__: Any,
    ) -> Tensor:  # fmt: skip
        if mask_at is None:
            whole: Tensor = self.layer(hidden, attention_mask)
            return whole
        if isinstance(attention_mask, Seats):
            asking = hidden[0].index_select(0, attention_mask.firsts + mask_at).unsqueeze(1)
        else:
            texts = torch.arange(hidden.shape[0], device=hidden.device)
            asking = hidden[texts, mask_at].unsqueeze(1)
            if attention_mask is not None and attention_mask.shape[2] > 1:
                attention_mask = attention_mask[texts, :, mask_at].unsqueeze(2)
        heads, _ = self.layer.attention.self(hidden, attention_mask, asking)
        seen = self.layer.attention.output(heads, asking)
        return self.layer.output(self.layer.intermediate(seen), seen)


def opened(layer: Any, backbone: Backbone) -> SelfAttention:
    """The ``SelfAttention`` of ``layer``, put in the place of the backbone's own module on the first call.

    InputError for a family whose attention is of another shape.
    """
    kind = backbone.model.config.model_type
    if kind not in SHAPED_LIKE_BERT:
        raise InputError(
            f"the attention of a '{kind}' backbone takes no prefix and no narrow last layer; use one of type "
            f"{', '.join(sorted(SHAPED_LIKE_BERT))}, or a stage at attention_output or ffn_output."
        )
    if not isinstance(layer.attention.self, SelfAttention):
        layer.attention.self = SelfAttention(layer.attention.self)
    found: SelfAttention = layer.attention.self
    return found


class SelfAttention(nn.Module):
    """(B, T, D) -> ((B, Q, D), None): softmax(q k^T / sqrt(d_h) + mask) v by head, then each of ``extras`` in turn.

    The same numbers as the backbone's own module, whose projections it takes over under their own names, so that other
    stages still find them. With ``asking`` (B, Q, D) fewer positions ask than are attended to.

    An extra takes queries (B, H, Q, d_h), the scores (B, H, Q, T) and the heads' output (B, H, Q, d_h), and returns
    a new output.
    """

    def __init__(self, own: Any) -> None:
        super().__init__()
        self.query, self.key, self.value, self.dropout = own.query, own.key, own.value, own.dropout
        self.head_size = int(own.attention_head_size)
        self.extras = nn.ModuleList()

    def forward(
        self, hidden: Tensor, attention_mask: Tensor | Seats | None = None, asking: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, None]:
        query, key, value = self.query(hidden if asking is None else asking), self.key(hidden), self.value(hidden)
        if not isinstance(attention_mask, Seats):
            if attention_mask is not None and attention_mask.dtype == torch.bool:
                attention_mask = to_add(~attention_mask, query.dtype)
            return self._heads(query, key, value, attention_mask), None
        if asking is not None:
            whole = attention_mask.whole
            return self._heads(query, whole.of(key[0]), whole.of(value[0]), whole.mask(query.dtype)), None
        groups = [
            self._heads(group.of(query[0]), group.of(key[0]), group.of(value[0]), group.mask(query.dtype))
            for group in attention_mask.groups
        ]
        return attention_mask.taken_back(groups).unsqueeze(0), None

    def _heads(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """(B, Q, D) of ``query`` (B, Q, D), ``key`` and ``value`` (B, T, D), by a mask to add."""
        query, key, value = (x.unflatten(-1, (-1, self.head_size)).transpose(1, 2) for x in (query, key, value))
        scores = query @ key.transpose(-1, -2) * self.head_size**-0.5
        if mask is not None:
            scores = scores + mask
        found = self.dropout(scores.softmax(-1)) @ value
        for extra in self.extras:
            found = extra(query, scores, found)
        return found.transpose(1, 2).flatten(2)
