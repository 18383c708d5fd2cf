"""One frozen encoder as two trees: the layers below the first tuned one, and those from it upward.

What the lower tree gives for a text never changes, so it needs no gradient and is worth keeping (``cache.py``).
Both trees are views: new modules around the backbone's own tensors.

For a head that reads the mask alone the last layer is narrowed to it: every token still gives its key and value, but
only the mask asks, so the query, the output projection and the feed-forward block cost one token a text instead of
all of them. That, and what a stage adds to attention heads, needs self-attention written out, which is done for layers
of BERT's shape. MPNet's and ALBERT's are put into that shape first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import Backbone

SHAPED_LIKE_BERT = frozenset({"bert", "roberta", "electra", "xlm-roberta", "camembert", "ernie", "mpnet", "albert"})


def lower(backbone: Backbone, depth: int) -> nn.Module:
    """An encoder of embeddings and the first ``depth`` layers; its ``last_hidden_state`` is what ``upper`` takes."""
    view = _tree(backbone)
    _keep(view, backbone, 0, depth)
    if depth < backbone.n_layers and hasattr(view, "final_norm"):  # ModernBERT: belongs after the last layer
        view.final_norm = nn.Identity()
    return view.requires_grad_(False).eval()


def upper(backbone: Backbone, depth: int) -> nn.Module:
    """An encoder from layer ``depth`` upward; called with ``inputs_embeds`` (B, T, D) where ``depth`` is above 0."""
    view = _tree(backbone)
    if depth:
        _keep(view, backbone, depth, backbone.n_layers)
        view.embeddings = Given()
        if hasattr(view, "embeddings_project"):  # ELECTRA, ALBERT: the hidden states are projected already
            view.embeddings_project = nn.Identity()
    return view


def divisible(backbone: Backbone) -> bool:
    """Whether the layers can run apart; not where a convolution runs beside the first one (large DeBERTa-v2)."""
    return not getattr(backbone.model.config, "conv_kernel_size", 0)


def _tree(backbone: Backbone) -> nn.Module:
    """An encoder whose layers stages can wrap one by one."""
    view = backbone.view()
    return InShapeOfBert(view, backbone).eval() if backbone.family.own else view


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


class InShapeOfBert(nn.Module):
    """The encoder ``view`` of MPNet or ALBERT with layers of BERT's shape around its own tensors; the same numbers.

    Every run of a layer that is run many times has modules of its own, so that a stage can change one run alone. A bias
    by relative position becomes part of the attention mask.
    """

    def __init__(self, view: Any, backbone: Backbone) -> None:
        super().__init__()
        self.config, self.embeddings = view.config, view.embeddings
        self.embeddings_project = getattr(view.encoder, "embedding_hidden_mapping_in", nn.Identity())
        self.positions: Any = getattr(view.encoder, "relative_attention_bias", None)
        self.bucket: Any = getattr(view.encoder, "relative_position_bucket", None)
        self.encoder = Layers(_in_shape_of_bert(backbone.layer(i), backbone) for i in range(backbone.n_layers))

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None, **given: Any,
    ) -> Any:  # fmt: skip
        from transformers.masking_utils import create_bidirectional_mask
        from transformers.modeling_outputs import BaseModelOutput

        hidden = self.embeddings_project(self.embeddings(input_ids=input_ids, inputs_embeds=inputs_embeds))
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=hidden, attention_mask=attention_mask)
        mask = mask if self.positions is None else self._biased(mask, hidden)
        for layer in self.encoder.layer:
            hidden = layer(hidden, mask, **given)
        return BaseModelOutput(last_hidden_state=hidden)

    def _biased(self, mask: Tensor | None, hidden: Tensor) -> Tensor:
        """(B, H, T, T): the additive ``mask``, and what MPNet adds to scores for the distance of two tokens."""
        places = torch.arange(hidden.shape[1], device=hidden.device)
        bias = self.positions(self.bucket(places[None, :] - places[:, None])).permute(2, 0, 1)
        return bias.expand(hidden.shape[0], -1, -1, -1) + (0 if mask is None else mask)


class Layers(nn.Module):
    """Layers where BERT has them, at ``encoder.layer``."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)


def _in_shape_of_bert(own: nn.Module, backbone: Backbone) -> nn.Module:
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertLayer

    given = backbone.model.config
    names = (
        "hidden_size", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps",
        "hidden_dropout_prob", "attention_probs_dropout_prob",
    )  # fmt: skip
    values = {name: getattr(given, name) for name in names}
    config = BertConfig(**values, attn_implementation=given._attn_implementation)
    with torch.device("meta"):
        layer = BertLayer(config)
    for path, module in list(layer.named_modules()):
        if isinstance(module, nn.Linear | nn.LayerNorm):
            layer.set_submodule(path, own.get_submodule(backbone.family.own.get(path, path)))
    return layer


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
