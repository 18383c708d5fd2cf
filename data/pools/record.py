"""The pool in the folder of a run, and what is written down of it.

``unlabelled.arrow`` is the pool, and ``unlabelled.json`` beside it says what it was made of, and what its sources had:
where it is made of the same, the pool is not made again. Both are checked: the record has a digest of itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from listflow.data.files import refusing, replacing
from listflow.data.pool import Before, BuiltPool, Pool
from listflow.data.pools.sample import build_pool, continue_pool
from listflow.data.rows import Counted, Unlabelled, digest, keys_digest

POOL_FILE = "unlabelled.arrow"
RECORD_FILE = "unlabelled.json"
OWN = "record_sha256"


def open_pool(asked: Unlabelled, folder: Path, most: int | None, seed: int, before: Before | None) -> BuiltPool:
    """Return the pool in `folder` if it was made of the same rows, else make a new one there.

    `most`, `seed` and `before` are as for `open_inputs`. Raises InputError as `build_pool`, and for a full disk.
    """
    made_of = {
        "sources": {f"unlabelled/{name}": value for name, value in asked.contents.items()},
        "columns": asked.columns.model_dump(),
        "is_pair": asked.is_pair,
        "excluded_keys": keys_digest(asked.exclude),
    }
    sample = {"most": most, "seed": seed, "before": before and before.sha256}
    with _storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        found = _reopen(folder, made_of, sample)
        if found:
            return found
        (folder / RECORD_FILE).unlink(missing_ok=True)
        built = _build(asked, folder / POOL_FILE, most, seed, before)
        drawn = built.is_sample or built.known is not None
        _record(folder, {"made_of": made_of, "sample": sample if drawn else None}, built)
        return built


def before_of(folder: Path, digests: Mapping[str, str]) -> Before | None:
    """Return what the run had whose inputs are kept in `folder`, for one that goes on from it; None where they do not
    say it. digests: of its files, as in `Inputs.digests`.
    """
    try:
        record = _read(folder)
        if record["sha256"] != digest(str(folder / POOL_FILE)):
            return None
        built = _built(Pool(folder / POOL_FILE), record)
        contents = {name: digests[f"unlabelled/{name}"] for name in built.sources}
        return Before(built, contents, record["made_of"]["excluded_keys"], record["sha256"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _build(asked: Unlabelled, out: Path, most: int | None, seed: int, before: Before | None) -> BuiltPool:
    """A sample goes on from that of `before`; what can be whole, is."""
    if most is None or before is None:
        return build_pool(asked, out, most, seed)
    if before.built.rows <= most:
        built = build_pool(asked, out, most, seed)
        if not built.is_sample:
            return built
    return continue_pool(asked, before, out, most, seed)


def _storing(folder: Path) -> AbstractContextManager[None]:
    return refusing(
        lambda reason: (
            f"{folder}: the unlabelled rows cannot be stored there ({reason}); free some space or choose another "
            "folder with --run-dir."
        )
    )


def _record(folder: Path, made_of: dict[str, Any], built: BuiltPool) -> None:
    """Says beside the pool what it was made of, its sha256, and what its sources had."""
    counts = {
        "skipped_blank": built.skipped_blank,
        "excluded": built.excluded,
        "per_source": built.per_source,
        "sources": {name: asdict(counted) for name, counted in built.sources.items()},
        "known": built.known,
        "news": built.news,
    }
    record = {**made_of, "sha256": digest(str(folder / POOL_FILE)), "counts": counts}
    record[OWN] = _digest_of(record)
    with replacing(folder / RECORD_FILE) as aside:
        aside.write_text(json.dumps(record, indent=2) + "\n", "utf-8")


def _read(folder: Path) -> dict[str, Any]:
    """The record in ``folder``; ValueError for one that is not what was written. Earlier ones have no digest."""
    record: dict[str, Any] = json.loads((folder / RECORD_FILE).read_text("utf-8"))
    own = record.pop(OWN, None)
    if own is not None and own != _digest_of(record):
        raise ValueError(f"{RECORD_FILE} was changed")
    return record


def _digest_of(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _reopen(folder: Path, made_of: dict[str, Any], sample: dict[str, Any]) -> BuiltPool | None:
    """The pool in `folder`, None where it is not whole or was made of something else.

    What a run of an earlier version has, which took all rows, it keeps.
    """
    path = folder / POOL_FILE
    try:
        record = _read(folder)
        if record["made_of"] != made_of or record["sha256"] != digest(str(path)):
            return None
        found, drawn = _built(Pool(path), record), record.get("sample")
        fits = drawn == sample if drawn else sample["most"] is None or found.rows <= sample["most"]
        return found if fits or "sample" not in record else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _built(pool: Pool, record: dict[str, Any]) -> BuiltPool:
    """What a record says of a pool; earlier versions, which took all rows, wrote less."""
    counts = record["counts"]
    if "sources" in counts:
        sources = {name: Counted(**counted) for name, counted in counts["sources"].items()}
        return BuiltPool(pool, sources, counts["known"], counts["news"])
    lost = {"blank": counts["skipped_blank"], "excluded": counts["excluded"]}
    sources, spans = {}, pool.spans()
    for name, kept in counts["per_source"].items():
        last = int(pool.numbers[spans[name][-1]]) if kept else 0
        sources[name] = Counted(kept + sum(lost.values()), last, **lost)
        lost = dict.fromkeys(lost, 0)
    return BuiltPool(pool, sources)
