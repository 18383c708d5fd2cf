"""Prompted texts as token ids, and padded batches of them: the one thing every model here eats.

``Encoded`` holds all texts of a set, in memory or memory-mapped; a ``Batch`` is made of some of its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from listflow.pipeline.method.sampling import round_up

IDS_AT_ONCE = 2**22  # of a pool, which may not fit into memory
# What one more pass costs besides its tokens, as so many tokens: on a processor, and on anything else.
A_PASS = {True: 32, False: 4096}
TEXTS_AT_ONCE = 2048  # that are compared


@dataclass(frozen=True)
class Encoded:
    """N prompted texts: flat token ids, (N + 1,) offsets into them, and (N,) mask positions within each.

    ``features`` holds what the frozen layers give for the same texts, where that is kept.
    """

    ids: np.ndarray
    offsets: np.ndarray
    mask_at: np.ndarray
    pad_id: int
    features: Features | None = None

    def __len__(self) -> int:
        return len(self.mask_at)

    def lengths(self) -> np.ndarray:
        """Tokens of every text, template and special tokens included."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> Encoded:
        """The given rows, in that order, in memory."""
        lengths = self.lengths()[rows]
        ids = np.concatenate([self.ids[self.offsets[i] : self.offsets[i + 1]] for i in rows])
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        kept = None if self.features is None else Features(self.features.values, self.features.starts[rows])
        return Encoded(ids, offsets, np.asarray(self.mask_at[rows]), self.pad_id, kept)

    def join(self, other: Encoded) -> Encoded:
        """The texts of both, in memory, these ones first; with features where both have them."""
        offsets = np.concatenate([self.offsets, self.offsets[-1] + other.offsets[1:]])
        kept = None
        if self.features is not None and other.features is not None:
            kept = self.features.join(self.lengths(), other.features, other.lengths())
        ids, masks = (np.concatenate(pair) for pair in ((self.ids, other.ids), (self.mask_at, other.mask_at)))
        return Encoded(ids, offsets, masks, self.pad_id, kept)

    def merged(self, places: np.ndarray, other: Encoded | None) -> Encoded:
        """The texts at ``places``, in memory, and for every -1 among these the next one of ``other``."""
        old, found = places >= 0, self.take(places[places >= 0])
        if other is None:
            return found
        order = np.where(old, np.cumsum(old) - 1, len(found) + np.cumsum(~old) - 1)
        return found.join(other).take(order)

    def alike(self, places: np.ndarray, other: Encoded) -> np.ndarray:
        """``places``, of a text here for each of ``other``, with -1 where the two have other tokens."""
        found = np.array(places)
        for start in range(0, len(places), TEXTS_AT_ONCE):
            rows = start + np.flatnonzero(places[start : start + TEXTS_AT_ONCE] >= 0)
            same = self.lengths()[places[rows]] == other.lengths()[rows]
            found[rows[~same]] = -1
            if len(rows := rows[same]):
                one, two = self.take(places[rows]), other.take(rows)
                found[rows[np.logical_or.reduceat(one.ids != two.ids, one.offsets[:-1])]] = -1
        return found

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """The given rows, right padded to the longest of them and a little further: see ``sampling.round_up``."""
        pieces = [self.ids[self.offsets[i] : self.offsets[i + 1]] for i in rows]
        width = round_up(max(len(piece) for piece in pieces))
        ids = np.full((len(pieces), width), self.pad_id, dtype=np.int64)
        attention = np.zeros((len(pieces), width), dtype=np.int64)
        for row, piece in enumerate(pieces):
            ids[row, : len(piece)] = piece
            attention[row, : len(piece)] = 1
        mask_at = torch.as_tensor(np.asarray(self.mask_at[rows]), dtype=torch.int64)
        kept = self.features
        hidden = None if kept is None else kept.batch(np.asarray(rows), [len(piece) for piece in pieces], width)
        return Batch(torch.from_numpy(ids), torch.from_numpy(attention), mask_at, hidden)


@dataclass
class Tally:
    """How many tokens of texts were met, and how many of them the tokenizer does not know.

    Neither the special tokens nor those of a template count. A tokenizer of bytes knows everything.
    """

    tokens: int = 0
    unknown: int = 0

    @property
    def share(self) -> float:
        """The unknown tokens' part of all, 0 to 1; 0 where there are none."""
        return self.unknown / self.tokens if self.tokens else 0.0

    def meet(self, ids: np.ndarray, rows: int, around: Sequence[int], unknown: int | None) -> None:
        """Adds the ``ids`` of ``rows`` texts, of which each has the ids ``around`` it; ``unknown`` is that token."""
        self.tokens += len(ids) - rows * len(around)
        if unknown is not None:
            pieces = (ids[start : start + IDS_AT_ONCE] for start in range(0, len(ids), IDS_AT_ONCE))
            self.unknown += sum(int(np.count_nonzero(piece == unknown)) for piece in pieces)
            self.unknown -= rows * list(around).count(unknown)


def one_vector_each(values: np.ndarray) -> Encoded:
    """N rows of which all that is read is a vector of ``values`` (N, F) each, as texts of a single token."""
    blank = _blank(len(values))
    return replace(blank, features=Features(values, blank.offsets[:-1]))


def vectors_when_needed(rows: int, read: Callable[[], np.ndarray]) -> Encoded:
    """The same of N ``rows`` whose vectors (N, F) are not made before one of them is needed."""
    blank = _blank(rows)
    return replace(blank, features=LateFeatures(read, blank.offsets[:-1]))


def _blank(rows: int) -> Encoded:
    zeros = np.zeros(rows, dtype=np.int32)
    return Encoded(zeros, np.arange(rows + 1, dtype=np.int64), zeros, 0)


@dataclass(frozen=True)
class Features:
    """Hidden states of N texts: ``values`` (tokens, D), float32 or the bits of bfloat16; (N,) where each begins."""

    values: np.ndarray
    starts: np.ndarray

    def batch(self, rows: np.ndarray, lengths: Sequence[int], width: int) -> Tensor:
        """(B, width, D), zero beyond each text's end."""
        hidden = np.zeros((len(lengths), width, self.values.shape[1]), dtype=self.values.dtype)
        for place, (start, length) in enumerate(zip(self.starts[rows].tolist(), lengths, strict=True)):
            hidden[place, :length] = self.values[start : start + length]
        found = torch.from_numpy(hidden)
        return found.view(torch.bfloat16) if found.dtype == torch.int16 else found

    def join(self, lengths: np.ndarray, other: Features, others: np.ndarray) -> Features:
        """These texts, of ``lengths`` tokens, and then those of ``other``, in memory."""
        spans = [(self, *span) for span in zip(self.starts, lengths, strict=True)]
        spans += [(other, *span) for span in zip(other.starts, others, strict=True)]
        values = np.concatenate([kept.values[start : start + length] for kept, start, length in spans])
        ends = np.cumsum(np.concatenate([lengths, others]))
        return Features(values, np.concatenate([[0], ends[:-1]]))


class LateFeatures(Features):
    """Hidden states that ``read`` gives, once, when they are needed: a view that has no say never needs the pool's."""

    def __init__(self, read: Callable[[], np.ndarray], starts: np.ndarray) -> None:
        # A frozen dataclass sets its fields in this way, and ``values`` is none of its own.
        object.__setattr__(self, "_read", read)
        object.__setattr__(self, "starts", starts)

    @cached_property
    def values(self) -> np.ndarray:
        """(tokens, D), as those of other features."""
        return self._read()  # type: ignore[attr-defined]


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
        """The same batch on ``device``."""
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

    @property
    def lengths(self) -> Tensor:
        """(B,) the tokens of each text."""
        return self.attention.sum(1)

    def take(self, rows: Tensor) -> Batch:
        """The given rows, padded no further than these need; a batch of no rows has no width."""
        width = round_up(int(self.lengths[rows].max())) if len(rows) else 0
        hidden, visible = (None if part is None else part[rows, :width] for part in (self.hidden, self.visible))
        return Batch(self.ids[rows, :width], self.attention[rows, :width], self.mask_at[rows], hidden, visible)

    def company(self, other: Batch) -> tuple[Tensor, Tensor]:
        """The rows of ``other`` that are best read in one pass with these texts, and those for a pass of their own.

        Of one long text in ``other`` all texts of a single pass would pay for the padding.
        """
        lengths, order = other.lengths.sort(stable=True)
        widths = [0, *(round_up(length) for length in lengths.tolist())]
        (rows, own), last = self.ids.shape, len(order)
        pass_of_its_own = A_PASS[self.ids.device.type == "cpu"]
        tokens = [(rows + k) * max(own, widths[k]) + (last - k) * widths[-1] + pass_of_its_own for k in range(last)]
        tokens.append((rows + last) * max(own, widths[-1]))
        best = tokens.index(min(tokens))
        return order[:best], order[best:]

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
    """(B, width) of rows (B, T)."""
    # Pad id 0 is harmless: attention is 0 there too, and no position beyond the last real token is read.
    return F.pad(rows, (0, width - rows.shape[1]))


def _deepen(hidden: Tensor, width: int) -> Tensor:
    """(B, width, D) of hidden states (B, T, D)."""
    return F.pad(hidden, (0, 0, 0, width - hidden.shape[1]))
