"""A task bound to a tokenizer: rows become token ids with exactly one mask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from listflow.data.errors import InputError
from listflow.data.task import MODIFIERS, Part, Task
from listflow.pipeline.backbone.batch import Batch
from listflow.pipeline.backbone.placement import layout, placed
from listflow.pipeline.method.sampling import round_up
from listflow.pipeline.pseudo_tokens import PseudoTokens

Text = tuple[str, str | None]


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

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """The given rows, right padded to the longest of them and a little further: see ``order.round_up``."""
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


class Prompt:
    """Encodes rows with the task's template. Only text is ever cut, never the template, its soft tokens or the mask.

    The i-th pseudo token of a stage, from 1 upward, has the token id -i; the stage turns these ids into its vectors.
    """

    def __init__(self, task: Task, tokenizer: Any, max_length: int, pseudo: PseudoTokens | None = None) -> None:
        self.task = task
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.parts = placed(task, pseudo, lambda text: len(token_ids(tokenizer, text)))
        self.layout = layout(self.parts)
        self.fixed = dict(_fixed(self.parts, tokenizer))
        self.start, self.end = tokenizer.cls_token_id, tokenizer.sep_token_id
        fixed = 3 + sum(len(ids) for ids in self.fixed.values())
        self.budget = max_length - fixed
        if self.budget < 4:
            raise InputError(
                f"the template of task '{task.name}' takes {fixed} of {max_length} tokens and leaves no room for "
                "text; shorten it or raise backbone.max_length."
            )

    def encode(self, texts: Sequence[Text]) -> Encoded:
        """All ``texts`` in memory; for a corpus, encode it piece by piece with ``encode_rows``."""
        rows = list(self.encode_rows(texts))
        lengths = [len(ids) for ids, _ in rows]
        flat = np.fromiter((i for ids, _ in rows for i in ids), dtype=np.int32, count=sum(lengths))
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return Encoded(flat, offsets, np.array([at for _, at in rows], dtype=np.int32), self.tokenizer.pad_token_id)

    def encode_rows(self, texts: Sequence[Text]) -> Iterator[tuple[list[int], int]]:
        """(token ids, mask position) of each text."""
        pieces = {i: self._tokenise(part, texts) for i, part in enumerate(self.parts) if part.kind in {"text", "pair"}}
        for row in range(len(texts)):
            cut = _shorten({i: column[row] for i, column in pieces.items()}, self.budget)
            yield self._assemble(cut)

    def spell(self, ids: Iterable[int]) -> str:
        """The text of token ids, with [P1], [P2] and so on for pseudo tokens."""
        runs = ((soft, list(run)) for soft, run in groupby(ids, lambda i: i < 0))
        return " ".join(
            " ".join(f"[P{-i}]" for i in run) if soft else str(self.tokenizer.decode(run)) for soft, run in runs
        )

    def _tokenise(self, part: Part, texts: Sequence[Text]) -> list[list[int]]:
        change = MODIFIERS[part.modifier] if part.modifier else str
        chosen = [change(text if part.kind == "text" else pair or "") for text, pair in texts]
        if self.task.lower:
            chosen = [text.lower() for text in chosen]
        # A text that spells a special token such as "[MASK]" must stay text.
        encoded = self.tokenizer(
            [part.value + text for text in chosen],
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _assemble(self, cut: dict[int, list[int]]) -> tuple[list[int], int]:
        ids, mask_at = [self.start], 0
        for i, part in enumerate(self.parts):
            if part.kind == "mask":
                mask_at = len(ids)
                ids.append(self.tokenizer.mask_token_id)
            else:
                ids.extend(self.fixed[i] if i in self.fixed else cut[i])
        return [*ids, self.end], mask_at


def _fixed(parts: Sequence[Part], tokenizer: Any) -> Iterator[tuple[int, list[int]]]:
    """(place, token ids) of each part that is the same in every prompt, the mask aside."""
    taken = 0
    for i, part in enumerate(parts):
        if part.kind == "literal":
            yield i, token_ids(tokenizer, part.value)
        elif part.kind == "soft":
            yield i, [-1 - number for number in range(taken, taken + part.count)]
            taken += part.count


def _shorten(pieces: dict[int, list[int]], budget: int) -> dict[int, list[int]]:
    """Cut from the ends, the longer text first, so that both of a pair keep a fair share of ``budget``."""
    if sum(map(len, pieces.values())) <= budget:
        return pieces
    if len(pieces) == 1:
        return {i: ids[:budget] for i, ids in pieces.items()}
    (first, a), (second, b) = pieces.items()
    share = budget // 2
    keep_a = max(share, budget - len(b)) if len(a) > share else len(a)
    return {first: a[:keep_a], second: b[: budget - min(keep_a, len(a))]}


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """The tokens of ``text``, to which a special token that it spells is text as well."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return ids
