"""The verbalizer head: masked-LM logits of the C label words at the mask position, and nothing else.

A trainable copy of the backbone's masked-LM head (dense, activation, LayerNorm) followed by only the C rows of
its decoder that belong to label words, so the full vocabulary projection is never computed. The rows are copied
from the tied word embeddings, never looked up by checkpoint key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Batch
from listflow.pipeline.method import tape
from listflow.pipeline.model.config import VerbalizerHead

M = TypeVar("M", bound=nn.Module)


class Verbalizer(nn.Module):
    """(B, D) features at the mask -> (B, C) logits in fp32."""

    reads_mask = True

    def __init__(
        self, config: VerbalizerHead, backbone: Backbone, word_ids: Sequence[int], generator: torch.Generator
    ) -> None:
        super().__init__()
        backbone.require_head("head verbalizer")
        model, family = backbone.model, backbone.family
        self.dense = _copy_linear(model.get_submodule(family.head_dense))
        self.norm = _copy_norm(model.get_submodule(family.head_norm))
        self.activation = F.gelu if family.head_activation == "gelu" else model.get_submodule(family.head_activation)
        ids = torch.as_tensor(word_ids, device=backbone.device)
        bias = model.get_parameter(family.decoder_bias)[ids].float()
        self.words = tape.Linear(backbone.word_rows.shape[1], len(word_ids), device=backbone.device)
        self.words.weight = nn.Parameter(backbone.word_rows[ids].float().clone())
        self.words.bias = nn.Parameter(bias.clone())
        self.requires_grad_(config.trained)

    @torch.no_grad()
    def centre(self, offset: Tensor) -> None:
        """Takes the mean logits ``offset`` (C,) off the start bias."""
        self.words.bias.sub_(offset.to(self.words.bias.device))

    def forward(self, at_mask: Tensor, batch: Batch) -> Tensor:
        return self.words(self.norm(self.activation(self.dense(at_mask.float()))))

    def labelled_loss(self, logits: Tensor, gold: Tensor) -> Tensor:
        """Cross-entropy of the label words, a scalar."""
        return F.cross_entropy(logits, gold)


def _copy_linear(source: nn.Module) -> tape.Linear:
    assert isinstance(source, nn.Linear)
    copied = tape.Linear(source.in_features, source.out_features, bias=source.bias is not None)
    return _copy_tensors(source, copied)


def _copy_norm(source: nn.Module) -> tape.LayerNorm:
    assert isinstance(source, nn.LayerNorm)
    shape = tuple(source.normalized_shape)
    return _copy_tensors(source, tape.LayerNorm(shape, eps=source.eps, bias=source.bias is not None))


def _copy_tensors(source: nn.Module, copied: M) -> M:
    copied.to(next(source.parameters()).device)
    copied.load_state_dict({name: value.float() for name, value in source.state_dict().items()})
    return copied.requires_grad_(True)
