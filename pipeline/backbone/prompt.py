"""A task bound to a tokenizer: rows become token ids with exactly one mask."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from listflow.data.errors import InputError
from listflow.data.task import Task
from listflow.data.template import MODIFIERS, Part
from listflow.pipeline.backbone.batch import Encoded, Tally
from listflow.pipeline.backbone.placement import PseudoTokens, layout, placed

Text = tuple[str, str | None]


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
        self.around = [self.start, tokenizer.mask_token_id, self.end, *(i for ids in self.fixed.values() for i in ids)]
        self.met = Tally()  # of all texts that were encoded in memory
        fixed = len(self.around)
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
        self.met.meet(flat, len(rows), self.around, self.tokenizer.unk_token_id)
        return Encoded(flat, offsets, np.array([at for _, at in rows], dtype=np.int32), self.tokenizer.pad_token_id)

    def key(self) -> str:
        """What decides the tokens of a text, as a sha256; empty for a tokenizer that cannot say it."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return ""
        said = json.loads(backend.to_str()) | {"truncation": None, "padding": None}  # which every call sets anew
        facts = [self.task.lower, list(map(repr, self.parts)), self.max_length, self.around, self.start, self.end]
        return hashlib.sha256(json.dumps([facts, said]).encode()).hexdigest()

    def tally(self, encoded: Encoded) -> Tally:
        """The tokens of texts that were ``encoded`` with this prompt, and how many of them are unknown."""
        found = Tally()
        found.meet(encoded.ids, len(encoded), self.around, self.tokenizer.unk_token_id)
        return found

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


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """The tokens of ``text``, to which a special token that it spells is text as well."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return ids


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
