"""What a run's folder tells without opening the run: how far it came, and whether someone works on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import ValidationError

from listflow.data.errors import InputError
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.wording import name_of, name_of_head
from listflow.pipeline.storage.checkpoint import LOCK, read_json, verified
from listflow.pipeline.storage.review import waits_until
from listflow.pipeline.storage.run_folder import RoundFolder, RunFolder, runs_below

State = Literal["running", "interrupted", "done"]
Part = Literal["complete", "damaged", "begun", "left"]
Accuracy = float | None


@dataclass(frozen=True)
class RoundStatus:
    """One round; round 0 is the teacher's and has a model only."""

    number: int
    pseudo: Part
    model: Part
    promoted: bool | None
    accuracy: Accuracy


@dataclass(frozen=True)
class Waiting:
    """The review that a run waits for: its round, and until when (UTC)."""

    round: int
    until: str


@dataclass(frozen=True)
class RunStatus:
    """A run: ``reached`` of ``rounds`` are judged; ``accuracy`` is the final model's, where it is known.

    ``stage`` and ``head`` are names with values in brackets. ``review`` where it waits for one.
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
    names = _trained(stored["config"])
    waiting = _waiting(folder, rounds) if state == "running" else None
    return RunStatus(folder, stored["fingerprint"][:12], task, state, reached, rounds, accuracy, *names, waiting)


def _waiting(folder: Path, rounds: int) -> Waiting | None:
    found = ((number, waits_until(folder, number)) for number in range(1, rounds + 1))
    return next((Waiting(number, until) for number, until in found if until), None)


def _trained(config: Any) -> tuple[str, str]:
    """Stage and head by name; a run of another version may have some that this one cannot read."""
    try:
        read = RunConfig.model_validate({"stage": config["stage"], "head": config["head"]})
    except ValidationError:
        return "unknown", "unknown"
    return name_of(read.stage), name_of_head(read.head)


def rounds_of(folder: Path, count: int) -> list[RoundStatus]:
    """The teacher's round and all rounds after it."""
    return [_round(RunFolder(folder).round(number)) for number in range(count + 1)]


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


def _round(kept: RoundFolder) -> RoundStatus:
    facts = verified(kept.model)
    promoted = bool(_read(kept.verdict)["promoted"]) if kept.verdict.exists() else None
    test = facts["test"] if facts else None
    pseudo = _part(kept.pseudo, begun=False) if kept.number else "complete"
    model = _part(kept.model, begun=any(kept.steps()))
    return RoundStatus(kept.number, pseudo, model, promoted, test["accuracy"] if test else None)


def _part(folder: Path, begun: bool) -> Part:
    if folder.exists():
        return "complete" if verified(folder) is not None else "damaged"
    return "begun" if begun else "left"


def _read(path: Path) -> Any:
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged; resume the run to make it again.")
    return value
