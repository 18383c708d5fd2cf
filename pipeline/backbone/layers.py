"""One frozen encoder as two trees: the layers below the first tuned one, and those from it upward.

What the lower tree gives for a text never changes, so it needs no gradient and is worth keeping (``cache.py``).
Both trees are views: new modules around the backbone's own tensors.

For a head that reads the mask alone the last layer is narrowed to it: every token still gives its key and value, but
only the mask asks, so the query, the output projection and the feed-forward block cost one token a text instead of
all of them. That, and what a stage adds to attention heads, needs self-attention written out, which is done for layers
of BERT's shape.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import Backbone

SHAPED_LIKE_BERT = frozenset({"bert", "roberta", "electra"})


def lower(backbone: Backbone, depth: int) -> nn.Module:
    """An encoder of embeddings and the first ``depth`` layers; its ``last_hidden_state`` is what ``upper`` takes."""
    view = backbone.view()
    _keep(view, backbone, 0, depth)
    if depth < backbone.n_layers and hasattr(view, "final_norm"):  # ModernBERT: belongs after the last layer
        view.final_norm = nn.Identity()
    return view.requires_grad_(False).eval()


def upper(backbone: Backbone, depth: int) -> nn.Module:
    """An encoder from layer ``depth`` upward; called with ``inputs_embeds`` (B, T, D) where ``depth`` is above 0."""
    view = backbone.view()
    if depth:
        _keep(view, backbone, depth, backbone.n_layers)
        view.embeddings = Given()
        if hasattr(view, "embeddings_project"):  # ELECTRA: the hidden states are projected already
            view.embeddings_project = nn.Identity()
    return view


def divisible(backbone: Backbone) -> bool:
    """Whether the layers can run apart; not where a convolution runs beside the first one (large DeBERTa-v2)."""
    return not getattr(backbone.model.config, "conv_kernel_size", 0)


def _keep(view: nn.Module, backbone: Backbone, first: int, end: int) -> None:
    """Leaves ``view`` the layers from ``first`` to before ``end``."""
    layers = view.get_submodule(backbone.layers_in_view)
    assert isinstance(layers, nn.ModuleList)
    view.set_submodule(backbone.layers_in_view, layers[first:end])


class Given(nn.Module):
    """In the place of the embedding layer: passes on the hidden states that the encoder was called with."""

    def forward(self, input_ids: None = None, inputs_embeds: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        assert inputs_embeds is not None
        return inputs_embeds


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
