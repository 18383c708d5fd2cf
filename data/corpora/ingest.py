"""Adding texts to a corpus: streamed, without what it has had before, all of a call or nothing.

The shards of a call become part of the corpus together, or the next call undoes what was begun. Each step is on the
disk before the next one begins, so a loss of power leaves no more than a kill does:

1. the shards, under names aside;
2. the digests of texts to keep out, then the index of texts: both may run ahead of the manifest, as the next ingest
   brings the index in step;
3. the new manifest aside, which tells of the names to come and of the corpus that they are added to;
4. the shards under their own names;
5. the manifest under its own name: from now on the shards are part of the corpus, and nothing is aside.

So a whole shard that the manifest does not name was begun where a manifest aside speaks of it. Any other one is text
that somebody has ingested, of which the manifest was lost, and is never removed.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from listflow.data.corpora.growth import begin
from listflow.data.corpora.text_index import KEPT_OUT, Seen, keys_of, read_kept_out, write_kept_out
from listflow.data.errors import InputError
from listflow.data.files import at_home, created, file_digest, missing, put, refusing, sync, take_back
from listflow.data.rows import Row, digest, read_rows, stem
from listflow.data.shards import (
    INDEX,
    KEPT_OUT_FILE,
    MANIFEST,
    SCHEMA,
    SHARDS,
    Manifest,
    Shard,
    dump_manifest,
    read_manifest,
    shard_rows,
)
from listflow.data.task import Columns

PLANNED = f"{MANIFEST}.part"
ROWS_A_SHARD = 100_000
ROWS_AT_ONCE = 2048  # the most that is held in memory


@dataclass(frozen=True)
class Ingested:
    """What an ingest did: rows that came in, the rows that did not by reason, and the corpus as it is now."""

    added: int
    dropped: dict[str, int]
    manifest: Manifest


def ingest(
    folder: Path,
    sources: Sequence[str],
    columns: Columns,
    *,
    is_pair: bool = False,
    keep_out: Sequence[str] = (),
    rows_a_shard: int = ROWS_A_SHARD,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Ingested:
    """Appends the rows of ``sources`` to the corpus in ``folder``, which is made if need be.

    Left out, over all of the corpus's history: texts it has had, texts that differ from one of these in case, white
    space or punctuation only, and texts of the ``keep_out`` files (labelled and test rows). Raises InputError for a
    source that cannot be used; the corpus is then as it was. A second ingest waits for the first.
    """
    if not sources:
        raise InputError("no file is given; name at least one to ingest.")
    folder, sources, keep_out = Path(at_home(folder)), [*map(at_home, sources)], [*map(at_home, keep_out)]
    digests = [digest(source) for source in sources]
    absent = missing(folder)
    with _storing(folder), _locked(folder), _leaving_no_stub(folder, absent):
        manifest = _open(folder, is_pair)
        with _index(folder, manifest) as seen:
            for file in keep_out:
                _keep_out(seen, file, columns, is_pair)
            taken = _Taken(folder, seen, manifest, rows_a_shard, on_rows)
            for source, sha256 in zip(sources, digests, strict=True):
                taken.take(read_rows(source, columns, is_pair=is_pair), stem(source), sha256)
            whole = replace(taken.manifest, dropped=dict(Counter(manifest.dropped) + taken.dropped))
            if keep_out or not (folder / KEPT_OUT_FILE).exists():
                write_kept_out(folder, seen.kept_out())
            seen.commit()
            begin(folder, manifest.last)
            settle(folder, manifest, whole)
    return Ingested(whole.rows - manifest.rows, dict(taken.dropped), whole)


def settle(folder: Path, before: Manifest, after: Manifest) -> None:
    """Makes the corpus of ``before`` that of ``after``, steps 3 to 5: the new shards lie aside, synced."""
    planned, new = folder / PLANNED, after.shards[len(before.shards) :]
    created(planned).write_text(dump_manifest(after, before), "utf-8")
    for path in (planned, folder, *([] if before.shards else [folder.parent])):
        sync(path)
    for shard in new:
        os.replace(_aside_of(folder, shard), folder / shard.file)
    if new:
        sync(folder / SHARDS)
    put(planned, folder / MANIFEST)


def _storing(folder: Path) -> AbstractContextManager[None]:
    return refusing(
        lambda reason: (
            f"{folder}: nothing can be stored there ({reason}); free some space or mend its permissions. The corpus is "
            "as it was."
        ),
        errors=(OSError, sqlite3.OperationalError),
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder, made and locked; waits for whoever has it."""
    lock = FileLock(folder / ".lock")
    while not lock.is_locked:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # whoever had it was refused, and took the folder back
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _leaving_no_stub(folder: Path, absent: Sequence[Path]) -> Iterator[None]:
    """Inside the lock: an ingest that ends before it settles takes the folders back that were ``absent``."""
    try:
        yield
    except BaseException:
        if absent and not any((folder / name).exists() for name in (MANIFEST, PLANNED)):
            take_back(absent)
        raise


class _Taken:
    """An ingest on its way: the manifest that it will leave."""

    def __init__(
        self, folder: Path, seen: Seen, manifest: Manifest, rows_a_shard: int, on_rows: Callable[[int], None]
    ) -> None:
        self.folder, self.seen, self.manifest = folder, seen, manifest
        self.rows_a_shard, self.on_rows = rows_a_shard, on_rows
        self.dropped: Counter[str] = Counter()

    def take(self, rows: Iterator[Row], source: str, sha256: str) -> None:
        """All rows of one source, as one shard or more."""
        fresh = self._fresh(rows)
        while first := list(islice(fresh, 1)):
            shard = self._write(chain(first, islice(fresh, self.rows_a_shard - 1)), source, sha256)
            self.manifest = replace(self.manifest, shards=(*self.manifest.shards, shard))

    def _fresh(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Those that the corpus has not had, in any form that counts; the others are counted in ``dropped``."""
        while some := list(islice(rows, ROWS_AT_ONCE)):
            whole = [row for row in some if row.text and row.pair != ""]
            self.dropped["blank"] += len(some) - len(whole)
            verdicts = self.seen.judge(keys_of([(row.text, row.pair) for row in whole]), self.manifest.last + 1)
            self.dropped.update(verdict for verdict in verdicts if verdict != "new")
            self.on_rows(len(some))
            yield from (row for row, verdict in zip(whole, verdicts, strict=True) if verdict == "new")

    def _write(self, rows: Iterator[Row], source: str, sha256: str) -> Shard:
        """The shard of all these rows, which lies aside and is on the disk."""
        number, first = self.manifest.last + 1, self.manifest.rows + 1
        shard = Shard(number, first, 0, "", source, sha256, datetime.now(UTC).isoformat(timespec="seconds"))
        aside, count = _aside_of(self.folder, shard), 0
        aside.parent.mkdir(exist_ok=True)
        with pq.ParquetWriter(created(aside), SCHEMA) as writer:
            while some := list(islice(rows, ROWS_AT_ONCE)):
                numbers = range(first + count, first + count + len(some))
                cells = {"row": numbers, "text": [row.text for row in some], "pair": [row.pair for row in some]}
                writer.write_batch(pa.record_batch(cells, SCHEMA))
                count += len(some)
        written = replace(shard, rows=count, sha256=file_digest(aside))
        sync(aside)
        return written


def _open(folder: Path, is_pair: bool) -> Manifest:
    """The manifest, or a new one; what an interrupted ingest left is swept away. InputError where shards lack one."""
    try:
        manifest = read_manifest(folder)
    except InputError:
        if (folder / MANIFEST).exists():
            raise
        manifest = Manifest(folder.name, is_pair)
    if manifest.is_pair != is_pair:
        kind, remedy = ("two texts", "say --pairs") if manifest.is_pair else ("one text", "leave --pairs out")
        raise InputError(f"corpus '{manifest.name}' has {kind} a row; {remedy}, or ingest into another corpus.")
    _undo_begun(folder, manifest)
    return manifest


@contextmanager
def _index(folder: Path, manifest: Manifest) -> Iterator[Seen]:
    """The index of the corpus's texts, in step with its manifest and with what may not come in."""
    with Seen(folder / INDEX) as seen:
        seen.forget_after(manifest.last)
        last = seen.last_shard()
        for shard in manifest.shards:
            if shard.number > last:
                rows = shard_rows(folder, shard)
                while some := list(islice(rows, ROWS_AT_ONCE)):
                    seen.judge(keys_of([(row["text"], row["pair"]) for row in some]), shard.number)
        seen.judge(read_kept_out(folder), KEPT_OUT)
        yield seen


def _keep_out(seen: Seen, file: str, columns: Columns, is_pair: bool) -> None:
    """Tells the index of texts that may never come in."""
    rows = read_rows(file, columns, is_pair=is_pair)
    while some := list(islice(rows, ROWS_AT_ONCE)):
        seen.judge(keys_of([(row.text, row.pair) for row in some]), KEPT_OUT)


def _undo_begun(folder: Path, manifest: Manifest) -> None:
    """Removes what an interrupted ingest left beside ``manifest``; InputError for a whole shard that is not of it."""
    shards = folder / SHARDS
    if not shards.is_dir():
        return
    named, begun = {shard.file for shard in manifest.shards}, _begun(folder, manifest)
    unnamed = [path for path in sorted(shards.glob("*.parquet")) if f"{SHARDS}/{path.name}" not in named]
    for path in unnamed:
        if f"{SHARDS}/{path.name}" not in begun:
            raise InputError(
                f"{path} is a shard that {MANIFEST} does not name, so the manifest is an old one or lost; restore the "
                "newest from a backup, or move such shards away to go on without their rows."
            )
    for path in (*unnamed, *shards.glob("*.part")):
        path.unlink()
    sync(shards)  # what tells of them goes last
    (folder / PLANNED).unlink(missing_ok=True)


def _begun(folder: Path, manifest: Manifest) -> set[str]:
    """The shards that an ingest was about to add to ``manifest``."""
    try:
        stored = json.loads((folder / PLANNED).read_text("utf-8"))
        is_next = stored["before"] == manifest.digest()
        return {Shard(**shard).file for shard in stored["shards"]} if is_next else set()
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return set()  # one that is not whole: no shard had its name yet


def _aside_of(folder: Path, shard: Shard) -> Path:
    """Where a shard is written: a name that no whole shard has."""
    return (folder / shard.file).with_suffix(".part")
