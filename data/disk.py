"""Files that are on the disk before they are seen under their name, so that they outlast a loss of power."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
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
