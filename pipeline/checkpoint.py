"""State on disk that can be trusted: folders that appear whole or not at all, and files that say what they are.

A stage's folder is written aside and renamed into place; its ``manifest.json`` is written last and holds the
sha256 of every other file. Complete means: the manifest verifies. Only safetensors, JSON and Parquet.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from data.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
FORMAT = 1


def file_digest(path: Path) -> str:
    """sha256 of a file, streamed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """``value`` as indented JSON, in place of what was there, never half of it."""
    with _storing(path.parent):
        aside = path.with_name(f"{path.name}.part")
        aside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
        os.replace(aside, path)


def read_json(path: Path) -> Any:
    """The JSON at ``path``; InputError when it is missing or damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; is {path.parent} the folder of a run?") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); delete its folder and resume the run.") from error


@contextmanager
def new_folder(path: Path, facts: Mapping[str, Any]) -> Iterator[Path]:
    """A folder to fill; at the end of the block it gets its manifest with ``facts`` and appears at ``path``."""
    aside = path.with_name(f".{path.name}.part")
    with _storing(path.parent):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        files = {str(f.relative_to(aside)): file_digest(f) for f in sorted(aside.rglob("*")) if f.is_file()}
        write_json(aside / MANIFEST, {"format": FORMAT, **facts, "files": files})
        shutil.rmtree(path, ignore_errors=True)
        os.replace(aside, path)


def verified(folder: Path) -> dict[str, Any] | None:
    """The manifest of a complete folder; None when it is absent, unreadable, or any file differs from it."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        if manifest["format"] != FORMAT:
            return None
        whole = all(file_digest(folder / name) == digest for name, digest in manifest["files"].items())
        return dict(manifest) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file, in place of what was there, never half of it."""
    # Who asks for the state of a run should not wait for torch.
    from safetensors.torch import save

    with _storing(path.parent):
        aside = path.with_name(f"{path.name}.part")
        # The library's own writing reports a full disk as damage; plain writing says what it is.
        aside.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))
        os.replace(aside, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; InputError when it is missing, truncated or damaged."""
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except FileNotFoundError as error:
        raise InputError(f"weights file {path} is missing; resume the run to make it again.") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"weights file {path} is damaged or cut short ({error}); delete its folder and resume the run."
        ) from error


@contextmanager
def single_writer(folder: Path) -> Iterator[None]:
    """Holds the lock of a run directory; InputError when another process writes there."""
    with _storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
    try:
        with lock:
            yield
    except Timeout as error:
        raise InputError(
            f"another process is writing to {folder}; wait for it to end, or choose another --run-dir."
        ) from error


@contextmanager
def _storing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}:
            raise
        raise InputError(
            f"cannot write to {folder} ({os.strerror(error.errno)}); free some space or choose another --run-dir, "
            "then resume the run."
        ) from error
