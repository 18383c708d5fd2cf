"""A view as one module of plain tensors: token ids (B, T) and attention (B, T) in, class logits (B, C) out.

What reads the mask finds it in the ids: no text has that token, and the prompt has it once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Batch
from listflow.pipeline.backbone.layers import upper
from listflow.pipeline.backbone.pooling import joined
from listflow.pipeline.backbone.text_face import TextFace
from listflow.pipeline.layers.attention import narrow
from listflow.pipeline.model.prototypes import Prototypes, around, at_length


class PromptGraph(nn.Module):
    """The masked LM ``merged`` at the mask, of whose vocabulary only ``tokens`` are scored; over a ``temperature``."""

    weight: Tensor
    bias: Tensor

    def __init__(self, merged: Backbone, tokens: Sequence[int], temperature: float) -> None:
        super().__init__()
        model, family, ids = merged.model, merged.family, list(tokens)
        self.encoder = upper(merged, 0)
        self.narrow = narrow(self.encoder, merged)
        self.mask, self.temperature = int(merged.tokenizer.mask_token_id), temperature
        self.dense, self.norm = model.get_submodule(family.head_dense), model.get_submodule(family.head_norm)
        self.activation = F.gelu if family.head_activation == "gelu" else model.get_submodule(family.head_activation)
        self.register_buffer("weight", model.get_output_embeddings().weight[ids].clone())
        self.register_buffer("bias", model.get_parameter(family.decoder_bias)[ids].clone())

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask_at = (input_ids == self.mask).long().argmax(1)
        narrowed = {"mask_at": mask_at} if self.narrow else {}
        found = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **narrowed).last_hidden_state
        # By shape, as a length would be written down as the number that it is now.
        texts = torch.arange(input_ids.shape[0], device=input_ids.device)
        at_mask = found[:, 0] if self.narrow else found[texts, mask_at]
        return F.linear(self.norm(self.activation(self.dense(at_mask))), self.weight, self.bias) / self.temperature


class TextGraph(nn.Module):
    """The encoder and the pooling of ``face`` and the label vectors of ``head``, over a ``temperature``.

    Pairs are given as ids and attention of the first text, then of the second one.
    """

    def __init__(self, face: TextFace, head: Prototypes, temperature: float) -> None:
        super().__init__()
        self.face, self.encoder, self.head, self.temperature = face, face.encoder, head, temperature

    def forward(self, *given: Tensor) -> Tensor:
        found = [self._embed(*given[place : place + 2]) for place in range(0, len(given), 2)]
        features = found[0] if len(found) == 1 else joined(*found)
        head = self.head
        features = around(at_length(features, head.config), head.centre, head.config)
        return F.linear(head.scale * features, head.out.weight, head.out.bias) / self.temperature

    def _embed(self, ids: Tensor, attention: Tensor) -> Tensor:
        return self.face.embed_batch(Batch(ids, attention, mask_at=ids[:, 0]))
