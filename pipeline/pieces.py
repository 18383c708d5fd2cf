"""Kept features in pieces of texts, each named by what it was made of: a corpus that has grown copies the old ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from listflow.data.errors import InputError
from listflow.pipeline.backbone.prompt import Encoded
from listflow.pipeline.storage.checkpoint import read_json, verified

ROWS = 2048
VALUES, PIECES = "values.bin", "pieces.json"


@dataclass(frozen=True)
class Piece:
    """Consecutive texts, and a key that is equal only for the same texts under the same layers."""

    key: str
    texts: Encoded

    @property
    def tokens(self) -> int:
        return int(self.texts.offsets[-1])


@dataclass(frozen=True)
class Place:
    """Where the values of a piece lie: a file and its tokens, counted from its begin."""

    file: Path
    tokens: slice


def pieces_of(encoded: Encoded, made_by: str) -> Iterator[Piece]:
    """``encoded`` in order, ``ROWS`` texts at a time; ``made_by`` says what computes their values."""
    for start in range(0, len(encoded), ROWS):
        texts = encoded.take(np.arange(start, min(start + ROWS, len(encoded))))
        yield Piece(content_key(texts, made_by), texts)


def content_key(encoded: Encoded, made_by: str) -> str:
    """sha256 over all that decides the values to the last bit: the texts, and what computes them."""
    total = hashlib.sha256(f"{made_by} {encoded.pad_id}".encode())
    total.update(encoded.lengths().tobytes())
    total.update(encoded.ids.data)
    return total.hexdigest()


def known_places(folders: Iterable[Path], wanted: Set[str]) -> dict[str, Place]:
    """Where the ``wanted`` pieces lie that complete ``folders`` hold, by key; damaged folders are passed over."""
    found: dict[str, Place] = {}
    for folder in folders:
        places = _places(folder)
        if not wanted.isdisjoint(places) and verified(folder) is not None:
            found |= places
    return found


def _places(folder: Path) -> dict[str, Place]:
    first, places = 0, dict[str, Place]()
    try:
        kept = read_json(folder / PIECES)
    except InputError:
        return places
    for key, tokens in kept:
        places[key] = Place(folder / VALUES, slice(first, first + tokens))
        first += tokens
    return places
