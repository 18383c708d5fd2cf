"""Files that are on the disk before they are seen under their name, so that they outlast a loss of power."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from listflow.data.errors import InputError


def short(path: Path) -> str:
    """``path`` as seen from here, if it lies below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


@contextmanager
def appears(path: Path) -> Iterator[Path]:
    """A file to fill, which at the end of the block takes the place of ``path``; its name is nobody else's."""
    aside = path.with_name(f".{path.name}.{uuid4().hex}.part")
    with storing(path.parent):
        try:
            yield aside
            put(aside, path)
        finally:
            aside.unlink(missing_ok=True)


FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
REFUSED = FULL | {errno.EACCES}


@contextmanager
def storing(folder: Path, reasons: frozenset[int] = REFUSED) -> Iterator[None]:
    """InputError where nothing can be stored in ``folder``."""
    try:
        yield
    except OSError as error:
        if error.errno not in reasons:
            raise
        raise InputError(
            f"cannot write to {folder} ({os.strerror(error.errno)}); free some space or choose another folder, then "
            "give the same command again."
        ) from error


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
