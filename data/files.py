"""Files that appear whole or not at all, folders taken back, and a sentence where there is no room for them.

What is written gets its name only once it is on the disk, so that it outlasts a loss of power. Every file is filled
aside, synced and then renamed; its folder, which holds the name, is synced after that.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from uuid import uuid4

from listflow.data.errors import InputError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
# Nobody's permission, or something else in the place of a folder or a file.
REFUSED = FULL | {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}


def replacing(path: Path) -> AbstractContextManager[Path]:
    """A file to fill, which at the end of the block takes the place of ``path``; nothing stays of one half filled.

    For a path in a folder of ours that one process writes at a time: it is filled as ``NAME.part``, and what a killed
    process left there goes. Where several may write, or others keep files, take ``replacing_shared``.
    """
    return _filled(path.with_name(f"{path.name}.part"), path)


def created(path: Path) -> Path:
    """``path``, now a new and empty file: what had the name goes, and where it was a link nothing is written there."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    return path


@contextmanager
def replacing_shared(path: Path) -> Iterator[Path]:
    """As ``replacing``, for a path that several processes may write at once: the last one to end stays.

    Each fills a file ``.NAME.*.part`` of its own, which a killed process leaves behind. InputError where there is no
    room, as ``storing`` says it.
    """
    with storing(path.parent), _filled(path.with_name(f".{path.name}.{uuid4().hex}.part"), path) as aside:
        yield aside


def put(aside: Path, path: Path) -> None:
    """Gives the file ``aside`` the name ``path`` in the same folder, in place of what had it."""
    sync(aside)
    os.replace(aside, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, would survive a loss of power."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def storing(folder: Path, reasons: frozenset[int] = REFUSED) -> AbstractContextManager[None]:
    """InputError where nothing can be stored in ``folder`` for one of these reasons, which are numbers of ``errno``."""
    return refusing(
        lambda reason: (
            f"cannot write to {folder} ({reason}); free some space or choose another folder, then give the same "
            "command again."
        ),
        reasons=reasons,
    )


@contextmanager
def refusing(
    sentence: Callable[[str], str],
    *,
    reasons: frozenset[int] | None = None,
    errors: tuple[type[Exception], ...] = (OSError,),
) -> Iterator[None]:
    """InputError with the ``sentence`` of the reason, where the block fails with one of ``errors``.

    reasons: the numbers of ``errno`` that count; None takes all, and errors without a number.
    """
    try:
        yield
    except errors as error:
        number = error.errno if isinstance(error, OSError) else None
        if reasons is not None and number not in reasons:
            raise
        raise InputError(sentence(os.strerror(number) if number else str(error))) from error


def file_digest(path: Path) -> str:
    """The sha256 of a file's bytes in hex, read piece by piece; OSError for a pipe or a device, which may never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "no plain file", str(path))
    with path.open("rb") as file:
        return digest_of(file)


def digest_of(file: BufferedReader) -> str:
    """As ``file_digest``, of a file that is open for its bytes."""
    return hashlib.file_digest(file, "sha256").hexdigest()


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


def at_home(path: str | Path) -> str:
    """``path`` with the home folder in the place of a ``~`` that it begins with; any other as it is."""
    return os.path.expanduser(path)


def short(path: Path) -> str:
    """``path`` as seen from here, if it lies below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


@contextmanager
def _filled(aside: Path, path: Path) -> Iterator[Path]:
    """``aside`` to fill, which takes the place of ``path``, or goes where the block fails."""
    created(aside)
    try:
        yield aside
        put(aside, path)
    finally:
        aside.unlink(missing_ok=True)
