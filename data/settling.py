"""The end of an ingest: its shards become part of the corpus together, or the next ingest undoes what was begun.

Each step is on the disk before the next one begins, so a loss of power leaves no more than a kill does:

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
from pathlib import Path

from listflow.data.errors import InputError
from listflow.data.files import put, sync
from listflow.data.shards import MANIFEST, SHARDS, Manifest, Shard, dump_manifest

PLANNED = f"{MANIFEST}.part"


def aside_of(folder: Path, shard: Shard) -> Path:
    """Where a shard is written: a name that no whole shard has."""
    return (folder / shard.file).with_suffix(".part")


def settle(folder: Path, before: Manifest, after: Manifest) -> None:
    """Makes the corpus of ``before`` that of ``after``: its new shards lie aside, synced, and the index is kept."""
    planned, new = folder / PLANNED, after.shards[len(before.shards) :]
    planned.write_text(dump_manifest(after, before), "utf-8")
    for path in (planned, folder, *([] if before.shards else [folder.parent])):
        sync(path)
    for shard in new:
        os.replace(aside_of(folder, shard), folder / shard.file)
    if new:
        sync(folder / SHARDS)
    put(planned, folder / MANIFEST)


def undo_begun(folder: Path, manifest: Manifest) -> None:
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
