"""A folder that tests change and that cannot be copied elsewhere, as its files have its path in them."""

from __future__ import annotations

import shutil
from pathlib import Path


def keep(folder: Path) -> Path:
    """Keeps a copy of ``folder`` beside it, for ``put_back``; returns ``folder``."""
    shutil.copytree(folder, _copy(folder))
    return folder


def put_back(folder: Path) -> Path:
    """Makes ``folder`` what it was when it was kept, times of files included; returns it."""
    shutil.rmtree(folder)
    return Path(shutil.copytree(_copy(folder), folder))


def _copy(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}, kept")
