"""Seeded draws, nested: K labelled rows, of which the draw of 10 lies within the draw of 20, and a sample of a stream.

Rows are ordered by a hash of seed, purpose and position, so a draw depends on no random generator and is the
same on every machine and version. A row of a stream keeps its priority however long the stream gets, so that one of
the smallest among more rows was one among fewer.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from listflow.data.errors import InputError

# The finaliser of splitmix64, which makes evenly spread numbers of consecutive ones.
_STEP, _FIRST, _SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)


def draw(labels: Sequence[str], k: int, seed: int, balanced: bool = True) -> list[int]:
    """Return the sorted indices of `k` of the rows that have these labels.

    balanced: class counts differ by at most one, as far as the rows allow. Otherwise a plain sample of the
    rows, which may be unbalanced and may miss a class. For one seed and mode, a smaller draw is always part
    of a larger one. Raises InputError if `k` is below 1 or above the number of rows.
    """
    if not 1 <= k <= len(labels):
        rows = len(labels)
        raise InputError(f"Cannot draw {k} of {rows} labelled rows; choose --shots from 1 to {rows}.")
    order = _in_turns(labels, seed) if balanced else _shuffled(range(len(labels)), seed, "natural")
    return sorted(order[:k])


def priorities(seed: int, source: str, numbers: np.ndarray) -> np.ndarray:
    """Return a uint64 for each row number of a source: it depends on these three alone."""
    key = np.uint64(int(_hash(seed, "pool", source)[:16], 16))
    mixed = numbers.astype(np.uint64) * _STEP + key
    mixed = (mixed ^ (mixed >> _SHIFTS[0])) * _FIRST
    mixed = (mixed ^ (mixed >> _SHIFTS[1])) * _SECOND
    mixed ^= mixed >> _SHIFTS[2]
    return mixed


def smallest(found: np.ndarray, most: int) -> np.ndarray:
    """Return the ascending indices of the `most` smallest priorities; of equal ones the first."""
    return np.sort(np.argsort(found, kind="stable")[:most])


class Sample:
    """The rows of the `most` smallest priorities of a stream, in one pass and in the memory of twice as many.

    `offer` says which rows may be among them; those are counted from 0, and `chosen` are the counts of those that are.
    """

    def __init__(self, most: int) -> None:
        self.most, self.offered = most, 0
        self._bound: np.uint64 | None = None
        self._found, self._counts = np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
        self._taken = 0

    def offer(self, found: np.ndarray) -> np.ndarray:
        """Return the indices within `found` of the rows that may be chosen, as far as is known now."""
        places = np.arange(len(found)) if self._bound is None else np.flatnonzero(found <= self._bound)
        counts = np.arange(self._taken, self._taken + len(places))
        self._found, self._counts = np.append(self._found, found[places]), np.append(self._counts, counts)
        self.offered += len(found)
        self._taken += len(places)
        if len(self._found) >= 2 * self.most:
            self._shrink()
            self._bound = self._found.max()
        return places

    def chosen(self) -> np.ndarray:
        """Return the counts of the chosen rows, ascending; all of them where no more were offered."""
        self._shrink()
        return self._counts

    def _shrink(self) -> None:
        kept = smallest(self._found, self.most)
        self._found, self._counts = self._found[kept], self._counts[kept]


def _in_turns(labels: Sequence[str], seed: int) -> list[int]:
    """All row indices, one row of each class in turn until the classes run out."""
    rows: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        rows[label].append(index)
    turns: list[tuple[int, str, int]] = []
    for label, indices in rows.items():
        rank = _hash(seed, "class", label)
        turns += [(turn, rank, index) for turn, index in enumerate(_shuffled(indices, seed, "row"))]
    return [index for _, _, index in sorted(turns)]


def _shuffled(indices: Sequence[int], seed: int, purpose: str) -> list[int]:
    return sorted(indices, key=lambda index: _hash(seed, purpose, index))


def _hash(seed: int, purpose: str, item: int | str) -> str:
    return hashlib.sha256(f"{seed}/{purpose}/{item}".encode()).hexdigest()
