"""A padded batch of prompted texts, the one thing every model here eats."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """``ids`` and ``attention`` are (B, T) int64, right padded; ``mask_at`` (B,) is where the mask token is.

    ``hidden`` (B, T, D) is what the frozen layers give for these texts, where that is known already. ``visible`` (B, T)
    are the tokens that the tuned layers may attend to, where these are not all real ones.
    """

    ids: Tensor
    attention: Tensor
    mask_at: Tensor
    hidden: Tensor | None = None
    visible: Tensor | None = None

    def __len__(self) -> int:
        return self.ids.shape[0]

    def to(self, device: torch.device) -> Batch:
        hidden, visible = (None if part is None else part.to(device) for part in (self.hidden, self.visible))
        return Batch(self.ids.to(device), self.attention.to(device), self.mask_at.to(device), hidden, visible)

    @property
    def attended(self) -> Tensor:
        """(B, T): the tokens that the tuned layers see."""
        return self.attention if self.visible is None else self.visible

    def cut(self, share: float, generator: torch.Generator) -> Batch:
        """This batch with about ``share`` of its tokens invisible (cutoff, arXiv 2009.13818); never the mask."""
        keep = (torch.rand(self.ids.shape, generator=generator) >= share).long()
        keep[:, 0] = 1
        keep[torch.arange(len(self)), self.mask_at] = 1
        return replace(self, visible=self.attention * keep)

    def join(self, other: Batch) -> Batch:
        """Both batches in one of B + B' rows, padded to the longer of the two."""
        width = max(self.ids.shape[1], other.ids.shape[1])
        pairs = ((self.ids, other.ids), (self.attention, other.attention))
        ids, attention = (torch.cat([_widen(a, width), _widen(b, width)]) for a, b in pairs)
        hidden = None
        if self.hidden is not None and other.hidden is not None:
            hidden = torch.cat([_deepen(self.hidden, width), _deepen(other.hidden, width)])
        visible = None
        if self.visible is not None or other.visible is not None:
            visible = torch.cat([_widen(self.attended, width), _widen(other.attended, width)])
        return Batch(ids, attention, torch.cat([self.mask_at, other.mask_at]), hidden, visible)


def _widen(rows: Tensor, width: int) -> Tensor:
    # Pad id 0 is harmless: attention is 0 there too, and no position beyond the last real token is read.
    return F.pad(rows, (0, width - rows.shape[1]))


def _deepen(hidden: Tensor, width: int) -> Tensor:
    return F.pad(hidden, (0, 0, 0, width - hidden.shape[1]))
