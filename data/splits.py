"""Seeded draws of K labelled rows in total, nested: the draw of 10 lies within the draw of 20.

Rows are ordered by a hash of seed, purpose and position, so a draw depends on no random generator and is the
same on every machine and version.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from listflow.data.errors import InputError


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
