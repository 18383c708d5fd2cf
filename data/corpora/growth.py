"""What a server was told of a corpus that grows, so that it hears of every growth, and of none twice.

CORPUS/told.txt has a line for each step, the last of which count: ``from N``, nothing before shard N + 1 is news;
``telling N``, it is about to be told of all shards up to N; ``told N``, it was. What was about to be told when the
process ended is told again as it was then, under the same id.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid5

from filelock import FileLock

from listflow.data.files import storing
from listflow.data.shards import Manifest, read_manifest

TOLD = "told.txt"
_LOCK = ".telling.lock"
_STEP = re.compile(r"(from|telling|told) ([0-9]{1,9})\n")


@dataclass(frozen=True)
class Growth:
    """Shards that came in together, as a server is told: ``rows`` are those of the corpus with them."""

    id: UUID
    added: int
    rows: int


def begin(folder: Path, last: int) -> None:
    """Before shards come in behind ``last``: from now on they are news."""
    state = _read(folder)
    if state is None or state[0] > last:
        _write(folder, "from", last)


def tell_growth(folder: Path, tell: Callable[[Growth], None]) -> None:
    """Tells of all that came in and was not told, in the order in which it came; what ``tell`` raises ends it.

    One process at a time, while others may go on adding.
    """
    with storing(folder), FileLock(folder / _LOCK):
        manifest = read_manifest(folder)
        told, begun = _read(folder) or (manifest.last, None)
        for last in (begun, manifest.last):
            if last is None or not told < last <= manifest.last:
                continue
            _write(folder, "telling", last)
            tell(_growth(folder, manifest, told, last))
            _write(folder, "told", last)
            told = last


def _growth(folder: Path, manifest: Manifest, told: int, last: int) -> Growth:
    until = [shard for shard in manifest.shards if shard.number <= last]
    added = sum(shard.rows for shard in until if shard.number > told)
    # With the times, as the same files may make a corpus of this name again, and that is news.
    known = hashlib.sha256("".join(f"{shard.sha256} {shard.time} " for shard in until).encode()).hexdigest()
    name = f"{folder.resolve().as_uri()}#{told}-{last}-{known}"
    return Growth(uuid5(NAMESPACE_URL, name), added, sum(shard.rows for shard in until))


def _read(folder: Path) -> tuple[int, int | None] | None:
    """(the last shard that was told, the last that was about to be); None where nothing is written yet."""
    try:
        lines = (folder / TOLD).read_text("utf-8", errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        return None
    told, begun = None, None
    for step in filter(None, map(_STEP.fullmatch, lines)):
        if step[1] == "telling":
            begun = int(step[2])
        else:
            told, begun = int(step[2]), None
    return None if told is None else (told, begun)


def _write(folder: Path, word: str, number: int) -> None:
    """One more line, which is on the disk when this returns; half a line that a kill left stays by itself."""
    with (folder / TOLD).open("ab+") as file:
        file.seek(0, os.SEEK_END)
        if file.tell():
            file.seek(-1, os.SEEK_END)
        torn = file.read(1) not in {b"", b"\n"}
        file.write(f"{chr(10) if torn else ''}{word} {number}\n".encode())
        file.flush()
        os.fsync(file.fileno())
