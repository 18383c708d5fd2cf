"""What finished runs can lose without anybody missing it, and how old they must be.

Kept always: configuration, corpus, promoted models, final/, predictions and reports, so that a run can be predicted
with, looked at and continued. Gone: step checkpoints, tokens and features (made again if asked for), pseudo labels,
and students that were refused. Unfinished runs keep everything, as does a run that someone works on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data.errors import InputError
from pipeline.checkpoint import read_json, single_writer, verified

DAY = 86_400


@dataclass(frozen=True)
class Removal:
    """Something of ``run`` that can go: its path, its size on disk, and what it is."""

    run: Path
    path: Path
    bytes: int
    what: str


def removals(parent: Path, days: float, now: float | None = None) -> list[Removal]:
    """What can go of all finished runs directly below ``parent`` whose report is at least ``days`` old."""
    before = (time.time() if now is None else now) - days * DAY
    found: list[Removal] = []
    for config in sorted(parent.glob("*/config.json")):
        report = config.parent / "report.json"
        if report.exists() and report.stat().st_mtime <= before and verified(config.parent / "final") is not None:
            found += _of(config.parent)
    return found


def remove(chosen: Iterable[Removal]) -> int:
    """Removes them and returns the bytes; what belongs to a run that someone works on stays."""
    freed = 0
    for removal in chosen:
        try:
            with single_writer(removal.run):
                shutil.rmtree(removal.path) if removal.path.is_dir() else removal.path.unlink(missing_ok=True)
                freed += removal.bytes
        except InputError:
            continue
    return freed


def _of(run: Path) -> Iterator[Removal]:
    places = [(path, "step checkpoint") for path in run.glob("round-*/*.step")]
    places += [(run / "inputs" / "features", "kept features"), (run / "inputs" / "tokens", "tokens")]
    places += [(path, "pseudo labels") for path in run.glob("round-*/pseudo")]
    places += [(path, "refused student") for path in run.glob("round-*/student") if not _promoted(path)]
    for path, what in sorted(places):
        if path.exists():
            yield Removal(run, path, _size(path), what)


def _promoted(student: Path) -> bool:
    """Whether a student ever taught; one without a verdict is kept too."""
    verdict = student.parent / "verdict.json"
    return not verdict.exists() or bool(read_json(verdict)["promoted"])


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
