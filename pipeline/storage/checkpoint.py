"""State on disk that can be trusted: folders that appear whole or not at all, and files that say what they are.

A stage's folder is written aside and renamed into place; its ``manifest.json`` is written last and holds the
sha256 of every other file. Complete means: the manifest verifies. Only safetensors, JSON and Parquet.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import FrameType
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from listflow.data.errors import InputError
from listflow.data.files import FULL, file_digest, replacing, storing, sync
from listflow.pipeline.storage.run_folder import CONFIG, INPUTS

if TYPE_CHECKING:
    from torch import Tensor

HEEDED = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def undisturbed() -> Iterator[None]:
    """A signal that comes inside the block is heeded at its end. Python interrupts no thread but the main one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[signal.Signals] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(signal.Signals(number))

    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in HEEDED}
    try:
        for number in HEEDED:
            signal.signal(number, note)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


MANIFEST, LOCK = "manifest.json", ".lock"
FORMAT = 1
ASKED_FOR = frozenset({CONFIG, INPUTS})


def write_json(path: Path, value: Any) -> None:
    """``value`` as indented JSON, in place of what was there, never half of it."""
    _put(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The JSON at ``path``; InputError when it is missing, cannot be read, is damaged or of a newer format."""
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is no plain file; restore it from a copy.")
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path} is missing; is {path.parent} the folder of a run?") from error
    except PermissionError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    return json_of(path, content)


def json_of(path: Path, content: bytes) -> Any:
    """The JSON in the ``content`` of the file at ``path``; InputError when it is damaged or of a newer format."""
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        # What a person asked for cannot be made again, and other files of its folder may hold a person's answers.
        remedy = "restore it from a copy" if path.name in ASKED_FOR else "restore it, or delete it and resume the run"
        raise InputError(f"{path} is damaged ({error}); {remedy}.") from error
    _check_format(path, value)
    return value


@contextmanager
def new_folder(path: Path, facts: Mapping[str, Any]) -> Iterator[Path]:
    """A folder to fill; at the end of the block it gets its manifest with ``facts`` and appears at ``path``."""
    aside = path.with_name(f".{path.name}.part")
    with storing(path.parent):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        for written in aside.rglob("*"):
            sync(written)
        files = {str(f.relative_to(aside)): file_digest(f) for f in sorted(aside.rglob("*")) if f.is_file()}
        write_json(aside / MANIFEST, {"format": FORMAT, **facts, "files": files})
        shutil.rmtree(path, ignore_errors=True)
        os.replace(aside, path)
        sync(path.parent)


def verified(folder: Path) -> dict[str, Any] | None:
    """The manifest of a complete folder; None when it is absent, unreadable, or any file differs from it.

    It names at least one file, each a plain one of this folder: what it says of others is not looked at.
    InputError when a newer version wrote it: what this one cannot read is not for it to make again.
    """
    if not (folder / MANIFEST).is_file():
        return None
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    _check_format(folder / MANIFEST, manifest)
    try:
        files = manifest["files"].items()
        whole = all(_is_within(name) and file_digest(folder / name) == digest for name, digest in files)
        return dict(manifest) if files and whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file, in place of what was there, never half of it."""
    # The library's own writing reports a full disk as damage; plain writing says what it is.
    _put(path, _packed(tensors))


def save_checked(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """As ``save_tensors``, with a sha256 of its own inside: for a file that no manifest speaks of."""
    _put(path, _packed(tensors, {"sha256": _content(tensors)}))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; InputError when it is missing, truncated or damaged."""
    from safetensors.torch import load_file

    try:
        # The library would call an interruption damage.
        with undisturbed():
            return dict(load_file(path))
    except FileNotFoundError as error:
        raise InputError(f"weights file {path} is missing; resume the run to make it again.") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"weights file {path} is damaged or cut short ({error}); delete its folder and resume the run."
        ) from error


def load_checked(path: Path) -> dict[str, Tensor]:
    """What ``save_checked`` wrote; InputError when it is missing, or a single bit of it is another one."""
    from safetensors import safe_open

    tensors = load_tensors(path)
    with undisturbed(), safe_open(path, "pt") as file:
        stored = file.metadata() or {}
    if stored.get("sha256") != _content(tensors):
        raise InputError(f"{path} is damaged; delete it and resume the run.")
    return tensors


@contextmanager
def single_writer(folder: Path) -> Iterator[None]:
    """Holds the lock of a run directory; InputError when another process writes there."""
    lock = FileLock(folder / LOCK, timeout=0)
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(
                f"another process is writing to {folder}; wait for it to end, or choose another --run-dir."
            ) from error
    try:
        with storing(folder, FULL):
            yield
    finally:
        lock.release()


def _put(path: Path, content: bytes) -> None:
    """``content`` at ``path``, on the disk before it is seen there."""
    with storing(path.parent), replacing(path) as aside:
        aside.write_bytes(content)


def _packed(tensors: Mapping[str, Tensor], facts: dict[str, str] | None = None) -> bytes:
    # Who asks for the state of a run should not wait for torch.
    from safetensors.torch import save

    with undisturbed():
        return save({name: tensor.contiguous() for name, tensor in tensors.items()}, facts)


def _content(tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(_packed(tensors)).hexdigest()


def _is_within(name: str) -> bool:
    """Whether ``name`` is that of a file in the folder whose manifest says it, or below."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _check_format(path: Path, value: Any) -> None:
    found = value.get("format") if isinstance(value, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise InputError(f"{path} is of format {found}, which a newer version of listflow wrote; update listflow.")
