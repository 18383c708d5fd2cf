"""What the pool of a run is made of: all unlabelled rows, or a seeded sample of them, in one pass over the sources.

A run that goes on from another has new rows in its sample first, and as many old ones, from the pool of that run, as
there is room for: no old row is new work.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby, islice, product
from operator import itemgetter
from pathlib import Path

import numpy as np

from listflow.data.errors import InputError
from listflow.data.files import replacing
from listflow.data.pool import ROWS_AT_ONCE, Before, BuiltPool, Pool, PoolRow, write_rows
from listflow.data.rows import Counted, Row, Unlabelled, keys_digest, text_key
from listflow.data.shards import is_corpus, read_manifest
from listflow.data.splits import Sample, priorities, smallest

LEAST_OLD = 10  # one in so many rows of a sample is an old one, however many are new: both are compared


def build_pool(asked: Unlabelled, out: Path, most: int | None = None, seed: int = 0) -> BuiltPool:
    """Stream all sources once into `out`: all rows that are not left out, or of more than `most` a seeded sample.

    A row's priority depends on the seed, the name of its source and its number there alone. The rows of the smallest
    ones are taken, in the order of the sources: when a source has grown, no old row is taken that was not taken before.
    The file appears only when it is complete. Raises InputError for a bad source or if no row is left.
    """
    tally: dict[str, Counted] = {}
    with replacing(out) as aside:
        _write_sample(asked.read(tally), aside, most, seed)
        _check_some(asked, tally)
    return BuiltPool(Pool(out), tally)


def continue_pool(asked: Unlabelled, before: Before, out: Path, most: int, seed: int) -> BuiltPool:
    """Build the sample of a run that goes on from another: `most` new rows, and old ones as far as there is room.

    New are the rows behind the last one of a source that the other run had, and all of a source that is another one
    now. Old ones are taken from the other run's pool, so that a corpus of which it had the first shards is not read
    again: those of the smallest priorities, and some however many are new.
    """
    found, fresh = _News(asked, before), out.with_name(f"{out.name}.new")
    try:
        with replacing(out) as aside:
            news = _write_sample(found.read(), fresh, most, seed)
            _check_some(asked, found.tally)
            new = Pool(fresh)
            old = found.old(max(most - len(new), most // LEAST_OLD, 1), seed)
            write_rows(aside, _in_order(asked.names, (before.built.pool, old), (new, np.arange(len(new)))))
    finally:
        fresh.unlink(missing_ok=True)
    return BuiltPool(Pool(out), found.tally, found.known, news)


class _Other(Exception):
    """A source is another one than before, under an old name."""


class _News:
    """What is new since an earlier run: `tally` counts all rows, `known` has the last old row of each old source."""

    def __init__(self, asked: Unlabelled, before: Before) -> None:
        self._asked, self._before, self._pool = asked, before, before.built.pool
        self.tally: dict[str, Counted] = {}
        self.known: dict[str, int] = {}
        self._spans = self._pool.spans()
        keys = (text_key(text, pair) for _, _, text, pair in self._pool.rows())
        self._there = np.zeros(len(self._pool), dtype=bool)
        labelled = {index: key for index, key in enumerate(keys) if key in asked.exclude}
        self._labelled = np.array(list(labelled), dtype=np.int64)
        # Only then is it known how many of the rows are left out that the earlier run had, and did not draw.
        self._is_counted = keys_digest(asked.exclude - set(labelled.values())) == before.excluded_keys

    def read(self) -> Iterator[tuple[str, Row]]:
        """Yield the new rows of all sources in order, with the names of these."""
        for name in self._asked.names:
            try:
                yield from ((name, row) for row in self._behind(name))
            except _Other:
                self.known.pop(name, None)
                self._there[self._span(name)] = False
                counted = self.tally[name] = Counted()
                yield from ((name, row) for row in self._asked.kept(name, counted))

    def old(self, most: int, seed: int) -> np.ndarray:
        """Return the ascending indices of the old rows that are still there and not labelled, `most` of them."""
        self._there[self._labelled] = False
        places = np.flatnonzero(self._there)
        return places[smallest(_priorities(seed, self._pool.rows(places)), most)]

    def _behind(self, name: str) -> Iterator[Row]:
        """The rows of a source behind those that the earlier run had; raises _Other before the first one."""
        before, span = self._before.built.sources.get(name), self._span(name)
        if before is None:
            raise _Other
        last = self.known[name] = before.last
        counted = self.tally[name] = Counted()
        if self._is_counted and self._has_grown(name):
            self._there[span] = True
            labelled = int(np.isin(self._labelled, np.arange(span.start, span.stop)).sum())
            counted = self.tally[name] = replace(before, excluded=before.excluded + labelled)
            yield from self._asked.kept(name, counted, last)
            return
        old = zip(span, self._pool.rows(np.array(span)), strict=True)
        index, known = next(old, (0, None))
        for row in self._asked.kept(name, counted):
            if row.number > last:
                yield row
                continue
            while known is not None and known[1] < row.number:
                index, known = next(old, (0, None))
            if known is not None and known[1] == row.number:
                if (row.text, row.pair) != known[2:]:
                    raise _Other
                self._there[index] = True

    def _has_grown(self, name: str) -> bool:
        """Whether the source is a corpus that began as it was for the earlier run."""
        source = self._asked.names[name]
        return is_corpus(source) and read_manifest(Path(source)).as_of(self._before.contents[name]) is not None

    def _span(self, name: str) -> range:
        return self._spans.get(name, range(0))


def _check_some(asked: Unlabelled, tally: Mapping[str, Counted]) -> None:
    if not any(counted.kept for counted in tally.values()):
        blank, excluded = (sum(getattr(each, name) for each in tally.values()) for name in ("blank", "excluded"))
        lost = f"{blank} blank, {excluded} among the labelled rows"
        raise InputError(f"{', '.join(asked.sources)}: no unlabelled row is left ({lost}); add more rows.")


def _write_sample(found: Iterator[tuple[str, Row]], path: Path, most: int | None, seed: int) -> int:
    """Writes all rows, or those of the ``most`` smallest priorities; returns how many there were."""
    rows = ((name, row.number, row.text, row.pair) for name, row in found)
    if most is None:
        return write_rows(path, rows)
    sample, offered = Sample(most), path.with_name(f"{path.name}.offered")
    write_rows(path, _offered(rows, sample, seed))
    if sample.offered > most:
        try:
            os.replace(path, offered)
            write_rows(path, Pool(offered).rows(sample.chosen()))
        finally:
            offered.unlink(missing_ok=True)
    return sample.offered


def _offered(rows: Iterator[PoolRow], sample: Sample, seed: int) -> Iterator[PoolRow]:
    """Those that may be of the sample, as far as is known when they are met."""
    while some := list(islice(rows, ROWS_AT_ONCE)):
        yield from (some[place] for place in sample.offer(_priorities(seed, some)))


def _priorities(seed: int, rows: Iterable[PoolRow]) -> np.ndarray:
    by_source = ((name, np.array([row[1] for row in some])) for name, some in groupby(rows, itemgetter(0)))
    return np.concatenate(
        [np.empty(0, dtype=np.uint64), *(priorities(seed, name, numbers) for name, numbers in by_source)]
    )


def _in_order(names: Iterable[str], *parts: tuple[Pool, np.ndarray]) -> Iterator[PoolRow]:
    """The rows of these indices of pools, source by source and in each of them pool by pool."""
    spans = [(pool, indices, pool.spans()) for pool, indices in parts]
    for name, (pool, indices, found) in product(names, spans):
        first, end = np.searchsorted(indices, [(span := found.get(name, range(0))).start, span.stop])
        yield from pool.rows(indices[first:end])
