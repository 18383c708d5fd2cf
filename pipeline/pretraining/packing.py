"""Any amount of plain text as one memory-mapped file of token ids, cut into sequences of equal length.

Paragraphs follow each other with a separator token in between. A sequence of T tokens is T - 2 of them
between the tokenizer's first and last special token, as a classifier's input is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from listflow.data.errors import InputError
from listflow.data.files import replacing, text_lines
from listflow.data.rows import read_rows
from listflow.data.task import Columns

CHARACTERS_AT_ONCE = 1 << 16  # of text in memory while packing; a single longer paragraph is held whole


class Packed:
    """The sequences of a file that ``pack`` wrote; read from disk when asked for."""

    def __init__(self, path: Path, tokenizer: Any, length: int) -> None:
        self.ends = (tokenizer.cls_token_id, tokenizer.sep_token_id)
        flat = np.memmap(path, dtype=_dtype(tokenizer), mode="r")
        self.tokens, width = len(flat), length - 2
        self._rows = flat[: len(flat) // width * width].reshape(-1, width)

    def __len__(self) -> int:
        return len(self._rows)

    def sequences(self, rows: np.ndarray) -> np.ndarray:
        """(B, T) token ids, int64."""
        inner = self._rows[rows].astype(np.int64)
        return np.pad(inner, ((0, 0), (1, 1)), constant_values=((0, 0), self.ends))


def pack(sources: Sequence[str], columns: Columns, tokenizer: Any, length: int, path: Path) -> None:
    """Streams all sources once through ``tokenizer`` into ``path``, which appears only when it is complete.

    A source is a .txt file with one paragraph a line, or whatever ``read_rows`` reads. Raises InputError for
    a bad source, a tokenizer without special tokens, or less text than two sequences of ``length`` tokens.
    """
    if None in (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id):
        raise InputError("this backbone's tokenizer lacks a mask, first or last token; choose another.")
    tokens = 0
    with replacing(path) as aside:
        with aside.open("wb") as file:
            for texts in _portions(text for source in sources for text in _paragraphs(source, columns)):
                ids = _flat_ids(texts, tokenizer)
                tokens += len(ids)
                file.write(ids.tobytes())
        if tokens < 2 * (length - 2):
            found = f"{tokens} tokens" if tokens else "no text at all"
            least = f"two sequences of {length} are the least"
            raise InputError(f"{', '.join(sources)}: {found}, and {least}; add more text.")


def _paragraphs(source: str, columns: Columns) -> Iterator[str]:
    if Path(source).suffix.lower() == ".txt":
        return (line.strip() for line in text_lines(source))
    return (row.text for row in read_rows(source, columns, is_pair=False))


def _portions(texts: Iterable[str]) -> Iterator[list[str]]:
    portion: list[str] = []
    size = 0
    for text in filter(None, texts):
        portion.append(text)
        size += len(text)
        if size >= CHARACTERS_AT_ONCE:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _flat_ids(texts: list[str], tokenizer: Any) -> np.ndarray:
    quiet = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
    rows = tokenizer(texts, add_special_tokens=False, **quiet)["input_ids"]
    flat = [token for row in rows if row for token in (*row, tokenizer.sep_token_id)]
    return np.asarray(flat, dtype=_dtype(tokenizer))


def _dtype(tokenizer: Any) -> type[np.unsignedinteger | np.signedinteger]:
    return np.uint16 if len(tokenizer) <= 1 << 16 else np.int32
