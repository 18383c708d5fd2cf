"""The pool of a run: the unlabelled rows of all its sources, or a sample of them, as one memory-mapped Arrow table.

Any number of rows takes next to no memory. A source is a file, a hub data set, or a corpus, which grows: the pool has
the rows that it had when the run was first opened. It is made in pools/sample.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from listflow.data.errors import InputError
from listflow.data.rows import Counted

ROWS_AT_ONCE = 1024  # rows of a record batch, the most that building holds in memory
SCHEMA = pa.schema(
    [
        ("corpus", pa.string()),  # the name of the source
        ("row", pa.int64()),
        ("text", pa.large_string()),  # a batch of huge texts may pass the 2 GiB that plain strings can hold
        ("pair", pa.large_string()),
    ]
)
Texts = list[tuple[str, str | None]]
PoolRow = tuple[str, int, str, str | None]  # the name of its source, the number that it has there, its texts


class Pool:
    """The rows of a file that `write_rows` wrote, in order; texts are read from disk when asked for.

    Raises InputError if the file is missing or broken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._batches = pa.ipc.open_stream(pa.memory_map(str(path))).read_all().to_batches()
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: is no readable corpus; delete it and run again.") from error
        self._starts: list[int] = [0, *accumulate(batch.num_rows for batch in self._batches)]

    def __len__(self) -> int:
        return self._starts[-1]

    def row_ids(self, indices: Sequence[int]) -> list[str]:
        """Return `source:row` for each index: the name of its source, and the number that it has there, from 1."""
        return [f"{source}:{row}" for source, row in self._cells(indices, "corpus", "row")]

    def spans(self) -> dict[str, range]:
        """Return the indices of every source by its name: sources stand one after the other."""
        names: dict[str, int] = {}
        for batch in self._batches:
            for counted in batch["corpus"].value_counts().to_pylist():
                names[counted["values"]] = names.get(counted["values"], 0) + counted["counts"]
        ends = [0, *accumulate(names.values())]
        return {name: range(*bounds) for name, bounds in zip(names, pairwise(ends), strict=True)}

    def upto(self, span: range, row: int) -> int:
        """Return how many indices of a source's `span` have a row number of `row` at most: rows of a source ascend."""
        return int(np.searchsorted(self.numbers[span.start : span.stop], row, side="right"))

    def find(self, span: range, rows: np.ndarray) -> np.ndarray:
        """Return the index of each row number of a source's `span`, -1 where it is not in the pool."""
        numbers = self.numbers[span.start : span.stop]
        places = np.searchsorted(numbers, rows).clip(max=max(len(numbers) - 1, 0))
        return np.where(numbers[places] == rows, places + span.start, -1) if len(numbers) else np.full(len(rows), -1)

    @cached_property
    def numbers(self) -> np.ndarray:
        """The number of every row in its source."""
        return np.concatenate([np.empty(0, dtype=np.int64), *(batch["row"].to_numpy() for batch in self._batches)])

    def texts(self, indices: Sequence[int]) -> Texts:
        """Return (text, second text or None) for each index."""
        if isinstance(indices, range) and indices.step == 1 and 0 <= indices.start < indices.stop <= len(self):
            return [(text, pair) for _, _, text, pair in self.rows(np.array(indices))]
        return list(self._cells(indices, "text", "pair"))

    def batches(self, size: int) -> Iterator[tuple[range, Texts]]:
        """Yield the whole pool in order, `size` rows at a time: their indices and their texts."""
        for start in range(0, len(self), size):
            indices = range(start, min(start + size, len(self)))
            yield indices, self.texts(indices)

    def rows(self, indices: np.ndarray | None = None) -> Iterator[PoolRow]:
        """Yield the rows of ascending `indices`, or all, in order and a batch at a time."""
        indices = np.arange(len(self)) if indices is None else indices
        for place in np.unique(np.searchsorted(self._starts, indices, side="right") - 1):
            begin, stop = self._starts[place : place + 2]
            first, end = np.searchsorted(indices, [begin, stop])
            batch = self._batches[place].take(pa.array(indices[first:end] - begin))
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def _cells(self, indices: Sequence[int], left: str, right: str) -> Iterator[tuple[Any, Any]]:
        for index in indices:
            if not 0 <= index < len(self):
                raise IndexError(f"row {index} of a pool of {len(self)}")
            place = bisect_right(self._starts, index) - 1
            batch, offset = self._batches[place], index - self._starts[place]
            yield batch[left][offset].as_py(), batch[right][offset].as_py()


@dataclass(frozen=True)
class BuiltPool:
    """A pool, and what its sources had by their names.

    Of a run whose sample goes on from another one's: `known` has the sources that are the same ones still, and of each
    the last row that the other run had; `news` counts the rows behind these, in the pool or not.
    """

    pool: Pool
    sources: dict[str, Counted]
    known: dict[str, int] | None = None
    news: int | None = None

    @property
    def skipped_blank(self) -> int:
        """Blank rows, which were left out."""
        return sum(source.blank for source in self.sources.values())

    @property
    def excluded(self) -> int:
        """Rows that repeat a labelled text, which were left out."""
        return sum(source.excluded for source in self.sources.values())

    @property
    def per_source(self) -> dict[str, int]:
        """The rows of each source that were not left out, in the pool or not."""
        return {name: source.kept for name, source in self.sources.items()}

    @property
    def rows(self) -> int:
        """All of these rows."""
        return sum(self.per_source.values())

    @property
    def is_sample(self) -> bool:
        """Whether some of these are not in the pool."""
        return self.rows > len(self.pool)


@dataclass(frozen=True)
class Before:
    """What the run had that this one goes on from: `contents` are the digests of its sources by their names,
    `excluded_keys` the `keys_digest` of what was left out, `sha256` that of its pool.
    """

    built: BuiltPool
    contents: Mapping[str, str]
    excluded_keys: str
    sha256: str


def write_rows(path: Path, rows: Iterator[PoolRow]) -> int:
    """Write the file of a pool with these rows; return how many they are."""
    written = 0
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as writer:
        while some := list(islice(rows, ROWS_AT_ONCE)):
            writer.write_batch(pa.record_batch([list(cells) for cells in zip(*some, strict=True)], SCHEMA))
            written += len(some)
    return written
