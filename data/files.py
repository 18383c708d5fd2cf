"""Files that are on the disk before they are seen under their name, so that they outlast a loss of power."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, would survive a loss of power."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def put(aside: Path, path: Path) -> None:
    """Gives the file ``aside`` the name ``path`` in the same folder, in place of what had it."""
    sync(aside)
    os.replace(aside, path)
    sync(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to fill, which at the end of the block takes the place of ``path``; nothing stays of one half filled."""
    aside = path.with_name(f"{path.name}.part")
    try:
        yield aside
        put(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def missing(folder: Path) -> list[Path]:
    """``folder`` and those that it lies in, the innermost first, as far as they are not there; for ``take_back``."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def take_back(made: Sequence[Path]) -> None:
    """Removes the first of the folders ``made`` with all that it holds, and the others where they hold nothing else."""
    for path in made[:1]:
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        for path in made[1:]:
            path.rmdir()
