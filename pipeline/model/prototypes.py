"""Label vectors: a class is a vector, a text's logit its product with the text's (arXiv 1703.05175; 2202.09817).

The features are fixed. From each a ``centre`` is taken, the mean of the classes' means, which is kept with the vectors
and not trained; what is left is brought to unit length, but for pairs. Logits are then ``scale`` e . w_c + b_c. With
``middle`` a the features are of two parts, each of which is brought to unit length: e = (e_1, a e_2) / sqrt(1 + a^2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Batch
from listflow.pipeline.method import tape
from listflow.pipeline.model.config import PrototypesHead


class Prototypes(nn.Module):
    """(B, T, F) features -> (B, C) logits in fp32: of a text's single vector, or of the mean of its tokens."""

    reads_mask = False
    centre: Tensor

    def __init__(
        self, config: PrototypesHead, backbone: Backbone, word_ids: Sequence[object], generator: torch.Generator
    ) -> None:
        super().__init__()
        width = config.width or backbone.hidden_size
        self.config, self.scale = config, config.scale
        self.register_buffer("centre", torch.zeros(width))
        self.out = tape.Linear(width, len(word_ids))
        nn.init.normal_(self.out.weight, std=width**-0.5, generator=generator)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor, batch: Batch) -> Tensor:
        seen = batch.attended.unsqueeze(-1).to(torch.float32)
        pooled = (features.float() * seen).sum(1) / seen.sum(1)
        return self.out(self.scale * around(at_length(pooled, self.config), self.centre, self.config))

    def labelled_loss(self, logits: Tensor, gold: Tensor) -> Tensor:
        """Cross-entropy, a scalar."""
        return F.cross_entropy(logits, gold)


def at_length(features: Tensor, head: PrototypesHead) -> Tensor:
    """(N, F) features, each part at unit length; as they are for pairs."""
    if not head.normalised:
        return features
    return torch.cat([F.normalize(part, dim=-1) for part in _parts(features, head)], dim=-1)


def around(features: Tensor, centre: Tensor, head: PrototypesHead) -> Tensor:
    """(N, F) ``features`` less ``centre`` (F,), at unit length again, the middle layer's part as ``head`` weighs it."""
    found = at_length(features - centre, head)
    if not head.reads_middle:
        return found
    said, middle = _parts(found, head)
    return torch.cat([said, head.middle * middle], dim=-1) / (1 + head.middle**2) ** 0.5


def _parts(features: Tensor, head: PrototypesHead) -> tuple[Tensor, ...]:
    return features.chunk(2, dim=-1) if head.reads_middle else (features,)
