"""Frozen layers of BERT's shape on the tokens of a batch alone: the padding of shorter texts costs nothing.

Beside the layers as they are, in a row (``layers/in_a_row.py``), their maps are multiplied in other ways here.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.backbone.text_face import TextFace
from listflow.pipeline.layers.in_a_row import embedded
from listflow.pipeline.layers.seats import VECTOR, Seats, seatable
from listflow.pipeline.model.arithmetic import Arithmetic, Map, map_of
from listflow.pipeline.model.classifier import Classifier

Encoder = TypeVar("Encoder", bound=Prompt | TextFace)


def unpadded(encoder: nn.Module, backbone: Backbone, arithmetic: Arithmetic) -> nn.Module:
    """``encoder``, a view of ``backbone`` or of its lower layers, by that ``arithmetic``; the same numbers to rounding.

    As it is for a family whose layers are of another shape, which are read ``padded``.
    """
    return Unpadded(encoder, backbone, arithmetic) if seatable(backbone) and arithmetic != "padded" else encoder


def reading_by(arithmetic: Arithmetic, model: Classifier, encoder: Encoder, backbone: Backbone) -> Encoder:
    """What reads texts for ``model``, whose frozen layers, and those of a text face, are read by ``arithmetic`` now.

    One such face serves all models on ``backbone``, so that a text is read once for them (results/predictors.py).
    """
    if arithmetic == "padded":
        model.row = None
    if model.below is not None:
        model.below = unpadded(model.below, backbone, arithmetic)
    if not isinstance(encoder, TextFace):
        return encoder
    face, key = copy.copy(encoder), ("text face", arithmetic)
    if key not in backbone.maps:
        backbone.maps[key] = unpadded(encoder.encoder, backbone, arithmetic)
    face.encoder = backbone.maps[key]
    return face


def is_unpadded(*parts: Any) -> bool:
    """Whether one of these, layers or faces of a text, reads without padding."""
    return any(isinstance(part, Unpadded) or isinstance(getattr(part, "encoder", None), Unpadded) for part in parts)


class Unpadded(nn.Module):
    """Ids and attention (B, T) -> ``last_hidden_state`` (B, T, D), 0 at padding; all ``hidden_states`` where asked."""

    def __init__(self, encoder: Any, backbone: Backbone, arithmetic: Arithmetic) -> None:
        super().__init__()
        self.encoder, self.config, self.multiple = encoder, encoder.config, VECTOR.get(backbone.dtype, 16)
        layers = encoder.get_submodule(backbone.layers_in_view)
        self.layers = [_Layer(layer, arithmetic, backbone.maps) for layer in layers]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, output_hidden_states: bool = False, **_: Any
    ) -> BaseModelOutput:
        seats = Seats.of(attention_mask, self.multiple)
        tokens = seats.tokens(embedded(self.encoder, input_ids=input_ids))
        found = [tokens]
        for layer in self.layers:
            tokens = layer(tokens, seats)
            found.append(tokens)
        kept = tuple(map(seats.padded, found)) if output_hidden_states else None
        return BaseModelOutput(last_hidden_state=kept[-1] if kept else seats.padded(tokens), hidden_states=kept)


class _Layer:
    """One layer of BERT's shape; tokens (N, D) -> (N, D)."""

    def __init__(self, own: Any, arithmetic: Arithmetic, made: dict[Any, Map]) -> None:
        attention, seen, inner, output = own.attention.self, own.attention.output, own.intermediate, own.output
        self.head_size = int(attention.attention_head_size)
        asked = (attention.query, attention.key, attention.value)
        self.query, self.key, self.value = (map_of(part, arithmetic, made) for part in asked)
        self.mixed, self.mixed_norm = map_of(seen.dense, arithmetic, made), seen.LayerNorm
        self.inner = map_of(inner.dense, arithmetic, made, inner.intermediate_act_fn)
        self.outer, self.outer_norm = map_of(output.dense, arithmetic, made), output.LayerNorm

    def __call__(self, tokens: Tensor, seats: Seats) -> Tensor:
        seen = self.mixed_norm(self.mixed(self._attention(tokens, seats), tokens))
        return self.outer_norm(self.outer(self.inner(seen), seen))

    def _attention(self, tokens: Tensor, seats: Seats) -> Tensor:
        """(N, D): softmax(q k^T / sqrt(d_h)) v by head, within each text."""
        query, key, value = (self._heads(part(tokens), seats) for part in (self.query, self.key, self.value))
        scores = (query * self.head_size**-0.5) @ key.transpose(-1, -2)
        mask = seats.whole.mask(scores.dtype)
        if mask is not None:
            scores += mask
        return seats.taken_back([(scores.softmax(-1) @ value).transpose(1, 2).flatten(2)])

    def _heads(self, projected: Tensor, seats: Seats) -> Tensor:
        return seats.whole.of(projected).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
