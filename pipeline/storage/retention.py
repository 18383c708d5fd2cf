"""What finished runs can lose without anybody missing it, and how old they must be.

Kept always: configuration, corpus, promoted models, final/, predictions and reports, so that a run can be predicted
with, looked at and continued. Gone: step checkpoints; tokens, features and vectors (made again if asked for); pseudo
labels; and students that were refused. Unfinished runs keep everything, as does a run that someone works on.
"""

from __future__ import annotations

import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from listflow.data.errors import InputError
from listflow.data.files import refusing
from listflow.pipeline.storage.checkpoint import read_json, single_writer, verified
from listflow.pipeline.storage.run_folder import RoundFolder, RunFolder, runs_below

DAY = 86_400


@dataclass(frozen=True)
class Removal:
    """Something of ``run`` that can go: its path, its size on disk, and what it is."""

    run: Path
    path: Path
    bytes: int
    what: str


def removals(
    parent: Path,
    days: float,
    now: float | None = None,
    on_refused: Callable[[InputError], None] = lambda error: None,
) -> list[Removal]:
    """What can go of all finished runs directly below ``parent`` whose report is at least ``days`` old.

    A run that cannot be read is told to ``on_refused`` and loses nothing, as does what is a link or lies behind one
    within a run. InputError where ``parent`` is no folder that
    holds runs, but a run itself or nothing at all.
    """
    _check_parent(parent)
    before = (time.time() if now is None else now) - days * DAY
    found: list[Removal] = []
    for run in runs_below(parent):
        try:
            if _is_old(run, before):
                found += _removable(run, on_refused)
        except InputError as error:
            on_refused(error)
    return found


def _check_parent(parent: Path) -> None:
    if not parent.is_dir():
        raise InputError(f"there is no folder {parent}; name the one that holds the runs.")
    if RunFolder(parent).config.exists():
        raise InputError(f"{parent} is a run; name the folder that holds the runs, {parent.resolve().parent}.")


def _is_old(run: RunFolder, before: float) -> bool:
    """Whether a run is finished and was so ``before``; InputError when a newer version wrote it, or it is damaged."""
    if not run.report.exists() or run.report.stat().st_mtime > before:
        return False
    read_json(run.config)
    return verified(run.final) is not None


def remove(chosen: Iterable[Removal], on_refused: Callable[[InputError], None] = lambda error: None) -> int:
    """Removes them and returns the bytes.

    What belongs to a run that someone works on stays, as does what cannot be removed; ``on_refused`` is told of both.
    """
    freed = 0
    for removal in chosen:
        before = _size(removal.path)
        try:
            with single_writer(removal.run):
                _remove(removal)
        except InputError as error:
            on_refused(error)
        freed += before - _size(removal.path)
    return freed


def _remove(removal: Removal) -> None:
    """InputError where it cannot go, or only in part."""
    path = removal.path
    _check_no_link(removal.run, path)
    with refusing(lambda reason: f"{path} cannot be removed ({reason}); mend its permissions, or remove it by hand."):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _check_no_link(run: Path, path: Path) -> None:
    """InputError where ``path`` is a link, or lies behind one: what it leads to is not of the run."""
    for part in (path, *path.parents):
        if part == run:
            return
        if part.is_symlink():
            raise InputError(f"{part} is a link, which is not followed; remove it, and what it leads to, by hand.")


def _removable(run: RunFolder, on_refused: Callable[[InputError], None]) -> Iterator[Removal]:
    told = set()
    for removal in _of(run):
        try:
            _check_no_link(run.path, removal.path)
            yield removal
        except InputError as error:
            if str(error) not in told:
                on_refused(error)
            told.add(str(error))


def _of(run: RunFolder) -> Iterator[Removal]:
    places = [(run.features, "kept features"), (run.tokens, "tokens"), (run.vectors, "sentence embeddings")]
    for made in run.rounds():
        places += [(path, "step checkpoint") for path in made.steps()]
        places.append((made.pseudo, "pseudo labels"))
        if made.number and not _promoted(made):
            places += [(view.model, "refused student") for view in (made, made.second)]
    for path, what in sorted(places):
        if path.exists() or path.is_symlink():
            yield Removal(run.path, path, _size(path), what)


def _promoted(made: RoundFolder) -> bool:
    """Whether a student ever taught; one without a verdict, or with one that does not say it, is kept too."""
    stored = read_json(made.verdict) if made.verdict.exists() else None
    return not isinstance(stored, dict) or stored.get("promoted") is not False


def _size(path: Path) -> int:
    """The bytes of the files at ``path`` and below, none behind a link; 0 where nothing is there."""
    found = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    sizes = (file.lstat() for file in found if file.exists() or file.is_symlink())
    return sum(size.st_size for size in sizes if stat.S_ISREG(size.st_mode))
