"""The linear head: one linear map of pooled features, the baseline that every other head should beat."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Batch
from listflow.pipeline.method import tape
from listflow.pipeline.model.config import LinearHead


class Linear(nn.Module):
    """(B, T, D) features -> (B, C) logits in fp32, of pooled features that are normalised to length sqrt(D)."""

    def __init__(
        self, config: LinearHead, backbone: Backbone, word_ids: Sequence[Sequence[int]], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.reads_mask, self.pool = config.pool == "mask", config.pool
        self.out = tape.Linear(backbone.hidden_size, len(word_ids))
        nn.init.normal_(self.out.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor, batch: Batch) -> Tensor:
        pooled = features.float() if self.reads_mask else self._pooled(features.float(), batch)
        return self.out(F.normalize(pooled, dim=-1) * pooled.shape[-1] ** 0.5)

    def _pooled(self, features: Tensor, batch: Batch) -> Tensor:
        if self.pool == "first":
            return features[:, 0]
        seen = batch.attended.unsqueeze(-1).to(features.dtype)
        return (features * seen).sum(1) / seen.sum(1)

    def labelled_loss(self, logits: Tensor, gold: Tensor) -> Tensor:
        """Cross-entropy, a scalar."""
        return F.cross_entropy(logits, gold)
