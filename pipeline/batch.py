"""A padded batch of prompted texts, the one thing every model here eats."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """``ids`` and ``attention`` are (B, T) int64, right padded; ``mask_at`` (B,) is where the mask token is."""

    ids: Tensor
    attention: Tensor
    mask_at: Tensor

    def __len__(self) -> int:
        return self.ids.shape[0]

    def to(self, device: torch.device) -> Batch:
        return Batch(self.ids.to(device), self.attention.to(device), self.mask_at.to(device))

    def join(self, other: Batch) -> Batch:
        """Both batches in one of B + B' rows, padded to the longer of the two."""
        width = max(self.ids.shape[1], other.ids.shape[1])
        pairs = ((self.ids, other.ids), (self.attention, other.attention))
        ids, attention = (torch.cat([_widen(a, width), _widen(b, width)]) for a, b in pairs)
        return Batch(ids, attention, torch.cat([self.mask_at, other.mask_at]))


def _widen(rows: Tensor, width: int) -> Tensor:
    # Pad id 0 is harmless: attention is 0 there too, and no position beyond the last real token is read.
    return F.pad(rows, (0, width - rows.shape[1]))
