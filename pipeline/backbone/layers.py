"""One frozen encoder as two trees: the layers below the first tuned one, and those from it upward.

What the lower tree gives for a text never changes, so it needs no gradient and is worth keeping (``cache.py``).
Both trees are views: new modules around the backbone's own tensors.

Stages that add to attention heads need layers of BERT's shape (``pipeline/layers``); MPNet's and ALBERT's are put into
that shape first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

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
