"""Runs that go on from one another, and what the next one has to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flows.runs import RunStatus, status_of
from pipeline.checkpoint import read_json
from pipeline.config import RunConfig
from pipeline.opening import load_config


@dataclass(frozen=True)
class Next:
    """The configuration of the next run of a lineage, or None and why there is nothing to do now."""

    config: RunConfig | None
    words: str


def next_of(first: Path) -> Next:
    """What comes after the run in ``first`` and all that went on from it: the newest is resumed, or continued.

    InputError when ``first`` is no run.
    """
    runs = lineage(first.resolve())
    newest = runs[-1]
    if newest.state == "running":
        return Next(None, f"{newest.folder.name} is running")
    if newest.state == "interrupted":
        return Next(load_config(newest.folder), f"resumes {newest.folder.name}")
    folder = first.resolve().parent / f"{first.resolve().name}-{len(runs) + 1:03d}"
    return Next(continued(newest.folder, folder), f"continues {newest.folder.name}")


def lineage(first: Path) -> list[RunStatus]:
    """The run in ``first``, the one that went on from it, and so on; of several the last by name."""
    found = [status_of(first)]
    parents = {
        read_json(path)["config"].get("continues"): path.parent for path in sorted(first.parent.glob("*/config.json"))
    }
    while (child := parents.pop(str(found[-1].folder), None)) is not None:
        found.append(status_of(child))
    return found


def continued(before: Path, folder: Path | None) -> RunConfig:
    """The configuration of a run that goes on from the one in ``before``: the same, and gated."""
    config = load_config(before)
    rounds = config.rounds.model_copy(update={"promote": "gated"})
    where = None if folder is None else str(folder)
    own = {"continues": str(before), "continues_model": "", "rounds": rounds, "run_dir": where}
    return config.model_copy(update=own)
