"""A corpus that grows: append-only Parquet shards, and a manifest that says what each of them holds.

CORPUS/manifest.json  CORPUS/shards/000001.parquet ...  CORPUS/seen.sqlite  CORPUS/kept-out.txt
CORPUS/told.txt, of what a server was told (corpora/growth.py)

What the manifest does not name is not part of the corpus, so an ingest that was interrupted leaves it as it was: see
``ingest.py``. The index of texts is made again from the shards, and from the digests of those that were kept out, if
it is lost.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter

from listflow.data.errors import InputError
from listflow.data.files import file_digest

FORMAT = 1
MANIFEST, SHARDS, INDEX, KEPT_OUT_FILE = "manifest.json", "shards", "seen.sqlite", "kept-out.txt"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SCHEMA = pa.schema([("row", pa.int64()), ("text", pa.large_string()), ("pair", pa.large_string())])
ROWS_AT_ONCE = 1024  # in memory at a time
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Shard:
    """One file of a corpus: its rows, counted over the whole corpus from ``first``, and where they came from."""

    number: Count
    first: Count
    rows: Count
    sha256: str
    source: str
    source_sha256: str
    time: str

    @property
    def file(self) -> str:
        """Its place below the corpus."""
        return f"{SHARDS}/{self.number:06d}.parquet"


@dataclass(frozen=True)
class Manifest:
    """What a corpus holds. ``is_pair``: every row has two texts."""

    name: str
    is_pair: bool
    shards: tuple[Shard, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The rows of all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def last(self) -> int:
        """The number of the newest shard, 0 for none."""
        return self.shards[-1].number if self.shards else 0

    def digest(self) -> str:
        """sha256 over the content of all shards in their order."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()

    def as_of(self, digest: str) -> Manifest | None:
        """The corpus as it was when its digest was ``digest``: its first shards. None when they never had that one."""
        read = hashlib.sha256()
        for count in range(len(self.shards) + 1):
            if read.hexdigest() == digest:
                return replace(self, shards=self.shards[:count])
            read.update("".join(shard.sha256 for shard in self.shards[count : count + 1]).encode())
        return None


_MANIFEST = TypeAdapter(Manifest)


def corpus_folder(home: Path, name: str) -> Path:
    """Where the corpus ``name`` is kept below ``home``; InputError for a name that could be a path."""
    if not NAME.fullmatch(name):
        raise InputError(
            f"'{name}' is no name for a corpus; use letters, digits, dots, dashes and underscores, such as 'tickets'."
        )
    return home / name


def is_corpus(source: str) -> bool:
    """Whether ``source`` is the folder of a corpus."""
    return os.path.isfile(Path(source) / MANIFEST)  # False for what is too long to be a path


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the corpus in ``folder``; InputError when it is missing, damaged or of a newer format."""
    path = folder / MANIFEST
    try:
        text = path.read_text("utf-8")
        stored = json.loads(text)
        if (found := stored["format"]) <= FORMAT:
            return _MANIFEST.validate_json(text, strict=True)
    except FileNotFoundError as error:
        raise InputError(f"{folder} holds no corpus; make one with `listflow ingest {folder.name} FILE`.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged; restore it from a backup, or ingest into a new corpus.") from error
    raise InputError(f"{path} is of format {found}, newer than this version of listflow; update it.")


def dump_manifest(manifest: Manifest, before: Manifest) -> str:
    """What ``read_manifest`` reads, and the digest of the corpus ``before`` that its newest shards were added to."""
    stored: dict[str, Any] = {"format": FORMAT, **asdict(manifest), "before": before.digest()}
    return json.dumps(stored, indent=1, ensure_ascii=False) + "\n"


def shard_rows(folder: Path, shard: Shard) -> Iterator[dict[str, Any]]:
    """Row number, text and second text of every row of a shard, in order; InputError when it was changed by hand."""
    for batch in shard_batches(folder, shard, ROWS_AT_ONCE):
        yield from batch.to_pylist()


def shard_batches(folder: Path, shard: Shard, rows: int) -> Iterator[pa.RecordBatch]:
    """The columns ``row``, ``text`` and ``pair`` of a shard, ``rows`` rows at a time; InputError as ``check_shard``."""
    check_shard(folder, shard)
    with pq.ParquetFile(folder / shard.file) as file:
        yield from file.iter_batches(rows)


def check_shard(folder: Path, shard: Shard) -> None:
    """Returns when the shard's file is what was ingested; InputError when it is missing or was changed by hand."""
    path = folder / shard.file
    try:
        found = file_digest(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); restore this shard from a backup.") from error
    if found != shard.sha256:
        raise InputError(f"{path} is not what was ingested: it was changed or damaged; restore it from a backup.")
