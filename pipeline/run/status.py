"""What a run's folder tells without opening the run: how far it came, and whether someone works on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import ValidationError

from listflow.data.errors import InputError
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.wording import name_of, name_of_head
from listflow.pipeline.storage.checkpoint import LOCK, read_json, verified
from listflow.pipeline.storage.lineage import Lineage, read_lineage
from listflow.pipeline.storage.review import waits_until
from listflow.pipeline.storage.run_folder import MIXTURE, RoundFolder, RunFolder, runs_below

State = Literal["running", "interrupted", "done"]
Part = Literal["complete", "damaged", "begun", "left"]
PARTS = ("stage", "head", "face", "second")  # of a configuration: what is trained
Accuracy = float | None


@dataclass(frozen=True)
class ModelStatus:
    """The teacher or student of a view in one round; ``accuracy`` is its own, on the test rows."""

    view: str
    part: Part
    accuracy: Accuracy


@dataclass(frozen=True)
class RoundStatus:
    """One round; round 0 is the teacher's and has models only, one for each view that is to train there."""

    number: int
    pseudo: Part
    models: tuple[ModelStatus, ...]
    promoted: bool | None


@dataclass(frozen=True)
class Waiting:
    """The review that a run waits for: its round, and until when (UTC)."""

    round: int
    until: str


@dataclass(frozen=True)
class RunStatus:
    """A run: ``reached`` of ``rounds`` are judged; ``accuracy`` is the final model's, where it is known.

    ``stage`` and ``head`` are names with values in brackets. ``review`` where it waits for one. ``views`` is how far
    each of two views is believed, once that is decided. ``lineage`` where it goes on from another run: up to it, or,
    while it is not done, to the run before.
    """

    folder: Path
    run_id: str
    task: str
    state: State
    reached: int
    rounds: int
    accuracy: Accuracy
    stage: str
    head: str
    review: Waiting | None = None
    views: dict[str, float] = field(default_factory=dict)
    lineage: Lineage | None = None


def find_runs(parent: Path, on_refused: Callable[[InputError], None]) -> list[RunStatus]:
    """All runs directly below ``parent``, by name; one that cannot be read is told to ``on_refused`` and left out."""
    found = []
    for run in runs_below(parent):
        try:
            found.append(status_of(run.path))
        except InputError as error:
            on_refused(error)
    return found


def status_of(folder: Path) -> RunStatus:
    """InputError when ``folder`` holds no run, or one that cannot be read."""
    try:
        return _status_of(folder)
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise InputError(
            f"{folder} is damaged ({type(error).__name__}: {error}); restore its files from a copy, or move it away."
        ) from error


def _status_of(folder: Path) -> RunStatus:
    files = RunFolder(folder)
    stored = _read(files.config)
    rounds = int(stored["config"]["rounds"]["count"])
    reached = sum(files.round(number).verdict.exists() for number in range(1, rounds + 1))
    done = files.report.exists() and verified(files.final) is not None
    state: State = "running" if is_running(folder) else "done" if done else "interrupted"
    final = _read(files.report)["final"] if done else None
    task = _read(files.inputs)["task"]["name"]
    accuracy = final["accuracy"] if final else None
    waiting = _waiting(folder, rounds) if state == "running" else None
    run_id, views = stored["fingerprint"][:12], _believed(files)
    names = _trained(stored["config"], views)
    before = stored["config"].get("continues")
    lineage = read_lineage(folder if done else Path(before)) if before else None
    return RunStatus(folder, run_id, task, state, reached, rounds, accuracy, *names, waiting, views, lineage)


def _waiting(folder: Path, rounds: int) -> Waiting | None:
    found = ((number, waits_until(folder, number)) for number in range(1, rounds + 1))
    return next((Waiting(number, until) for number, until in found if until), None)


def _trained(config: Any, believed: Mapping[str, float]) -> tuple[str, str]:
    """Stage and head by name, of the views that have a say; a run of another version may have some that this one
    cannot read.
    """
    try:
        read = RunConfig.model_validate({part: config[part] for part in PARTS if part in config})
    except ValidationError:
        return "unknown", "unknown"
    views = [read, *([read.text_alone()] if read.second else [])]
    heard = [view for view in views if believed.get(view.face, 1.0) > 0]
    stages = [name_of(view.stage) for view in heard]
    stage = " + ".join(name for name in stages if name != "none") or "none"
    return stage, " + ".join(name_of_head(view.head) for view in heard)


def rounds_of(folder: Path, count: int) -> list[RoundStatus]:
    """The teacher's round and all rounds after it, in which views without a say train nothing."""
    files = RunFolder(folder)
    config, believed = _read(files.config)["config"], _believed(files)
    views = [config.get("face", "prompt"), *([config["second"]["face"]] if config.get("second") else [])]
    heard = [view for view in views if believed.get(view, 1.0) > 0]
    return [_round(files.round(number), views, heard if number else views) for number in range(count + 1)]


def is_running(folder: Path) -> bool:
    """Whether another process holds the run's lock."""
    path = folder / LOCK
    try:
        if path.exists():
            with FileLock(path, timeout=0):
                pass
    except Timeout:
        return True
    except OSError:
        return False
    return False


def _believed(files: RunFolder) -> dict[str, float]:
    """The weight of each of two views; nothing where there is one, or where that is to be decided (again)."""
    decided = files.round(0).committee
    if verified(decided) is None:
        return {}
    return {voice["view"]: float(voice["weight"]) for voice in _read(decided / MIXTURE)["voices"]}


def _round(kept: RoundFolder, views: Sequence[str], training: Sequence[str]) -> RoundStatus:
    promoted = bool(_read(kept.verdict)["promoted"]) if kept.verdict.exists() else None
    pseudo = _part(kept.pseudo, begun=False) if kept.number else "complete"
    folders = dict(zip(views, (kept, kept.second), strict=False))
    models = tuple(_models({view: folders[view] for view in training}, any(kept.steps())))
    return RoundStatus(kept.number, pseudo, models, promoted)


def _models(folders: dict[str, RoundFolder], begun: bool) -> Iterator[ModelStatus]:
    """Views train one after the other: what is ``begun`` is the first that is not there."""
    for view, kept in folders.items():
        facts = verified(kept.model)
        test = facts["test"] if facts else None
        part = _part(kept.model, begun)
        begun = begun and part != "begun"
        yield ModelStatus(view, part, test["accuracy"] if test else None)


def _part(folder: Path, begun: bool) -> Part:
    if folder.exists():
        return "complete" if verified(folder) is not None else "damaged"
    return "begun" if begun else "left"


def _read(path: Path) -> Any:
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged; resume the run to make it again.")
    return value
