"""The pool of a run: the unlabelled rows of all its sources as one memory-mapped Arrow table.

Any number of rows takes next to no memory. A source is a file, a hub data set, or a corpus, which grows: the pool has
the rows that it had when the run was first opened.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import accumulate, count, islice, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from listflow.data.errors import InputError
from listflow.data.files import replacing
from listflow.data.rows import Row, read_rows, stem
from listflow.data.task import Columns

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


class Pool:
    """The rows of a file that `build_pool` wrote, in order; texts are read from disk when asked for.

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
        return bisect_right(span, row, key=lambda index: next(self._cells([index], "row", "row"))[0])

    def texts(self, indices: Sequence[int]) -> Texts:
        """Return (text, second text or None) for each index."""
        return list(self._cells(indices, "text", "pair"))

    def batches(self, size: int) -> Iterator[tuple[range, Texts]]:
        """Yield the whole pool in order, `size` rows at a time: their indices and their texts."""
        for start in range(0, len(self), size):
            indices = range(start, min(start + size, len(self)))
            yield indices, self.texts(indices)

    def _cells(self, indices: Sequence[int], left: str, right: str) -> Iterator[tuple[Any, Any]]:
        for index in indices:
            if not 0 <= index < len(self):
                raise IndexError(f"row {index} of a pool of {len(self)}")
            place = bisect_right(self._starts, index) - 1
            batch, offset = self._batches[place], index - self._starts[place]
            yield batch[left][offset].as_py(), batch[right][offset].as_py()


@dataclass(frozen=True)
class BuiltPool:
    """A pool and what building it left out: blank rows, excluded rows; rows kept by the name of their source."""

    pool: Pool
    skipped_blank: int
    excluded: int
    per_source: dict[str, int]


def build_pool(
    sources: Sequence[str],
    columns: Columns,
    *,
    is_pair: bool,
    out: Path,
    exclude: Set[str] = frozenset(),
    digests: Mapping[str, str] | None = None,
    labelled: Set[str] = frozenset(),
) -> BuiltPool:
    """Stream all sources once into `out`, leaving out blank texts and rows whose `text_key` is in `exclude`.

    digests: the content of sources by their `source_names`; one that is a growing corpus is read as it was then.
    labelled: those of `source_names` that have labels too, and of which only the rows without one are taken.
    The file appears only when it is complete. Raises InputError for a bad source or if no row is left.
    """
    tally = _Tally()
    named = zip(source_names(sources), sources, strict=True)
    read = {n: _rows_of(source, columns, is_pair, (digests or {}).get(n), n in labelled) for n, source in named}
    rows = _kept_rows(read, exclude, tally)
    with replacing(out) as aside:
        with pa.OSFile(str(aside), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as writer:
            while some := list(islice(rows, ROWS_AT_ONCE)):
                writer.write_batch(pa.record_batch([list(cells) for cells in zip(*some, strict=True)], SCHEMA))
        if not any(tally.kept.values()):
            lost = f"{tally.blank} blank, {tally.excluded} among the labelled rows"
            raise InputError(f"{', '.join(sources)}: no unlabelled row is left ({lost}); add more rows.")
    return BuiltPool(Pool(out), tally.blank, tally.excluded, tally.kept)


def source_names(sources: Sequence[str]) -> list[str]:
    """Return a name for each source: its stem, with -2, -3, ... where an earlier one has taken it."""
    names: list[str] = []
    for source in sources:
        base = stem(source)
        tries = (base if number == 1 else f"{base}-{number}" for number in count(1))
        names.append(next(name for name in tries if name not in names))
    return names


def text_key(text: str, pair: str | None) -> str:
    """Return 32 hex digits, equal for texts that differ in case and white space only."""
    folded = "\0".join(" ".join(part.casefold().split()) for part in (text, pair) if part is not None)
    return hashlib.blake2b(folded.encode(), digest_size=16).hexdigest()


@dataclass
class _Tally:
    blank: int = 0
    excluded: int = 0
    kept: dict[str, int] = field(default_factory=dict)


def _rows_of(source: str, columns: Columns, is_pair: bool, as_of: str | None, has_labels: bool) -> Iterator[Row]:
    if not has_labels:
        return read_rows(source, columns, is_pair=is_pair, as_of=as_of)
    rows = read_rows(source, columns, is_pair=is_pair, want_label=True, may_lack_label=True)
    return (row for row in rows if row.label is None)


def _kept_rows(
    sources: Mapping[str, Iterator[Row]], exclude: Set[str], tally: _Tally
) -> Iterator[tuple[str, int, str, str | None]]:
    for name, rows in sources.items():
        tally.kept[name] = 0
        for row in rows:
            if not row.text or row.pair == "":
                tally.blank += 1
            elif exclude and text_key(row.text, row.pair) in exclude:
                tally.excluded += 1
            else:
                tally.kept[name] += 1
                yield name, row.number, row.text, row.pair
