"""Files that appear whole or not at all, folders taken back, and a sentence where there is no room for them.

What is written gets its name only once it is on the disk, so that it outlasts a loss of power. Every file is filled
aside, synced and then renamed; its folder, which holds the name, is synced after that. What others wrote is opened here
too: unpacked, decoded line by line, or refused in a sentence.
"""

from __future__ import annotations

import atexit
import errno
import gzip
import hashlib
import os
import shutil
import stat
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from io import BufferedReader
from itertools import chain
from pathlib import Path
from tempfile import NamedTemporaryFile
from uuid import uuid4

from listflow.data.errors import InputError, did_you_mean

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
# Nobody's permission, or something else in the place of a folder or a file.
REFUSED = FULL | {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}
STDIN = "-"
BYTES_AT_ONCE = 2**16
_GZIP = b"\x1f\x8b"
# By how a file begins; the first ones begin as the others do.
_BEGINNINGS = {
    b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16",
}  # fmt: skip
_ONLY_CP1252 = frozenset(range(0x80, 0xA0))  # control characters in latin1
_NOT_CP1252 = frozenset({0x81, 0x8D, 0x8F, 0x90, 0x9D})


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


def shown(source: str) -> str:
    """What a sentence calls a source of texts: its path, or standard input for ``-``."""
    return "standard input" if source == STDIN else source


def open_source(source: str) -> BufferedReader:
    """The file, open for its bytes; InputError where there is none, or it is a pipe or a device."""
    path = Path(_standard_input() if source == STDIN else source)
    if os.path.isdir(path):
        raise InputError(f"{source}: is a folder; pass a file in it.")
    if not os.path.exists(path):
        folder = path.parent
        known = [item.name for item in folder.iterdir() if item.is_file()] if folder.is_dir() else []
        hint = did_you_mean(path.name, known)
        remedy = "check the path, or name a hub data set as owner/name or owner/name:config:split"
        raise InputError(f"{source}: no such file{hint}; {remedy}.")
    if not path.is_file():
        remedy = "save what it gives to a file, or feed it to `ingest` or `predict` on standard input and pass -"
        raise InputError(f"{source}: is a pipe or a device, no file; {remedy}.")
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{source}: cannot be opened ({error.strerror}); check its permissions.") from error


def text_lines(source: str) -> Iterator[str]:
    """The lines of a text file, decoded one by one; InputError as for ``decoded``."""
    with unpacked(source) as file:
        yield from decoded(source, file)


def decoded(source: str, file: BufferedReader) -> Iterator[str]:
    """The lines of ``file``, which is ``source`` opened: a bad byte is reported with its line, not with its buffer."""
    for number, raw in enumerate(file, 1):
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            begun = (_BEGINNINGS[mark] for mark in _BEGINNINGS if number == 1 and raw.startswith(mark))
            coding = next(begun, None) or _coding(raw, file)
            remedy = _converted(source, coding)
            raise InputError(f"{shown(source)}, line {number}: is not UTF-8; {remedy}.") from error


@cache
def _standard_input() -> str:
    """A file that has all of standard input, until this process ends."""
    if sys.stdin is None:
        raise InputError("standard input is closed; pass a file.")
    kept = NamedTemporaryFile(prefix="listflow-")  # noqa: SIM115  (it is closed at the end of the process)
    atexit.register(kept.close)
    with refusing(lambda reason: f"standard input cannot be kept in {kept.name} ({reason}); free some space."):
        shutil.copyfileobj(sys.stdin.buffer, kept)
        kept.flush()
    return kept.name


@contextmanager
def unpacked(source: str) -> Iterator[BufferedReader]:
    """The file, open for its bytes, which are unpacked on the way where gzip packed them, whatever it is called."""
    with open_source(source) as raw:
        packed = raw.peek(2)[:2] == _GZIP
        try:
            yield BufferedReader(gzip.GzipFile(fileobj=raw)) if packed else raw
        except (EOFError, zlib.error, OSError) as error:
            what = "is damaged gzip" if packed else "cannot be read to its end"
            raise InputError(f"{shown(source)}: {what} ({error}); write it anew.") from error


@contextmanager
def _filled(aside: Path, path: Path) -> Iterator[Path]:
    """``aside`` to fill, which takes the place of ``path``, or goes where the block fails."""
    created(aside)
    try:
        yield aside
        put(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _coding(raw: bytes, rest: BufferedReader) -> str:
    """What a text that is not UTF-8 is most likely coded in, by the bytes of a line and all that follow; or nothing."""
    odd = set[int]()
    for piece in chain([raw], iter(lambda: rest.read(BYTES_AT_ONCE), b"")):
        odd |= {byte for byte in _ONLY_CP1252 if byte in piece}
    if odd & _NOT_CP1252:
        return ""
    return "cp1252" if odd else "latin1"


def _converted(source: str, coding: str) -> str:
    if not coding:
        return "save it as UTF-8, or convert it with iconv from the encoding that it has"
    if source == STDIN:
        return f"put `iconv -f {coding} -t utf-8` before it"
    if Path(source).suffix.lower() == ".gz":
        return f"run `zcat {source} | iconv -f {coding} -t utf-8 > fixed{Path(Path(source).stem).suffix}`"
    return f"run `iconv -f {coding} -t utf-8 {source} > fixed{Path(source).suffix}`"
