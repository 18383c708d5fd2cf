"""What the runs of a lineage reached, each going on from the one before, as their reports tell it; and where it slides.

A report holds its whole lineage, so that it is known when earlier runs are gone; for one that an earlier version wrote,
the runs are followed from folder to folder. Names of folders only: the same runs elsewhere have the same lineage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from listflow.data.errors import InputError
from listflow.pipeline.storage.checkpoint import read_json
from listflow.pipeline.storage.run_folder import RunFolder

LEAST = 0.01  # of accuracy: less is not worth a warning, however sure
ERRORS = 2.0  # standard errors that chance alone seldom passes
ROUNDING = 1e-9
RUNS = 3  # so many in a row below the best are a slide, though each of them may be chance
OF_90_PERCENT = 1.645  # standard errors on either side
SHOWN_DIGEST = 12
_NEWS = re.compile(r"([\d,]+) of [\d,]+ unlabelled rows are new since .*, which goes on\.", re.DOTALL)


@dataclass(frozen=True)
class Range:
    """An accuracy estimated from the labels, 0 to 1, and the ends of its 90 % interval."""

    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Step:
    """A run of a lineage, by the name of its folder. ``accuracy`` and ``ece`` are its final model's, on the test rows.

    ``test`` begins the sha256 of the test file, empty without one. ``new_rows`` is None where nobody wrote it down.
    ``promoted`` is whether any student was, None without rounds; ``warnings`` are those of its new text.
    """

    run: str
    new_rows: int | None
    accuracy: float | None
    ece: float | None
    test: str
    test_rows: int
    estimate: Range | None
    promoted: bool | None
    warnings: tuple[str, ...] = ()

    @property
    def range(self) -> Range | None:
        """What is known of its accuracy, with a 90 % interval (Wilson's on test rows); None where nothing is."""
        if self.accuracy is None or not self.test_rows:
            return self.estimate
        share, rows, z = self.accuracy, self.test_rows, OF_90_PERCENT
        middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
        half = z / (1 + z**2 / rows) * (share * (1 - share) / rows + z**2 / (4 * rows**2)) ** 0.5
        return Range(share, middle - half, middle + half)


@dataclass(frozen=True)
class Slide:
    """A lineage whose last run is below its best by ``points`` of 100, and ``error`` of them, a standard error.

    ``is_paired`` where that is over the same rows; None for both where estimates are compared. ``is_sure`` where chance
    alone would not do it. ``runs`` in a row are below the best.
    """

    points: float
    is_sure: bool
    runs: int
    error: float | None = None
    is_paired: bool | None = None


@dataclass(frozen=True)
class Lineage:
    """Runs that go on from one another, the oldest first; ``ended`` says why none before is known, where some was.

    ``error`` is the standard error of what the last run lost on the best, over the rows of the test file.
    """

    steps: tuple[Step, ...]
    ended: str = ""
    error: float | None = None

    @property
    def last(self) -> Step:
        return self.steps[-1]

    @property
    def comparable(self) -> tuple[Step, ...]:
        """The steps that were measured as the last one is: on the same test rows, or by the labels alone."""
        if not self.steps:
            return ()
        if self.last.accuracy is None:
            return tuple(step for step in self.steps if step.accuracy is None and step.estimate)
        return tuple(step for step in self.steps if step.accuracy is not None and step.test == self.last.test)

    @property
    def best(self) -> Step | None:
        """The first of those that reached most; None where nothing is known of the last."""
        return max(self.comparable, key=_reached, default=None)

    @property
    def slide(self) -> Slide | None:
        """Where the last run is ``LEAST`` below the best: by more than a standard error, or ``RUNS`` in a row.

        By the labels alone, where the two intervals do not meet.
        """
        best = self.best
        if best is None:
            return None
        last, since = self.last, self.comparable[self.comparable.index(best) + 1 :]
        lost = _reached(best) - _reached(last)
        below = [*takewhile(lambda step: _reached(best) - _reached(step) >= LEAST - ROUNDING, reversed(since))]
        if not below:
            return None
        if last.accuracy is None:
            apart = last.range is not None and best.range is not None and last.range.high < best.range.low
            return Slide(100 * lost, True, len(below)) if apart else None
        error = self.error if self.error is not None else _unpaired(best, last)
        if lost <= error and len(below) < RUNS:
            return None
        return Slide(100 * lost, lost > ERRORS * error, len(below), 100 * error, self.error is not None)


def read_lineage(folder: Path) -> Lineage:
    """The lineage up to the run in ``folder``, from its report, or from those of the runs before; never refused.

    A run without a report, or with a damaged one, ends it, and ``ended`` says so: there may be no step at all then.
    """
    found: list[Step] = []
    for path in folders(folder):
        try:
            kept, step = _told_by(path)
        except (InputError, ValidationError, KeyError, TypeError, AttributeError, OSError):
            return Lineage(tuple(found), f"what {path.name} reached, and any run before it, is not known here.")
        if kept is not None:
            return Lineage((*kept.steps[:-1], step, *found), kept.ended, None if found else kept.error)
        found.insert(0, step)
    return Lineage(tuple(found))


def folders(folder: Path) -> Iterator[Path]:
    """The run in ``folder``, the one that it goes on from, and so on: as far as they are there, and one further."""
    seen: set[Path] = set()
    at: Path | None = folder
    while at is not None and at not in seen:
        yield at
        seen.add(at)
        try:
            before = read_json(RunFolder(at).config)["config"].get("continues")
        except (InputError, KeyError, TypeError, AttributeError, OSError):
            return
        at = Path(before) if before else None


def lineage_from(values: Any) -> Lineage:
    """The lineage that a report holds; ValidationError for what is none."""
    return _ADAPTER.validate_python(values)


def step_of(name: str, report: dict[str, Any], inputs: dict[str, Any]) -> Step:
    """The step that the report of a run makes, with the digests in its inputs.json. KeyError for what is no report."""
    final, estimate, drift = report["final"] or {}, report.get("estimate"), report.get("drift")
    rounds = [each["promoted"] for each in report["rounds"]]
    digest = (inputs.get("digests") or {}).get("test") or ""
    return Step(
        run=name, new_rows=_new_rows(report), accuracy=final.get("accuracy"), ece=final.get("ece"),
        test=digest[:SHOWN_DIGEST], test_rows=report["data"]["test"],
        estimate=Range(**{key: float(estimate[key]) for key in ("accuracy", "low", "high")}) if estimate else None,
        promoted=any(rounds) if rounds else None, warnings=tuple(drift["warnings"]) if drift else (),
    )  # fmt: skip


def _told_by(folder: Path) -> tuple[Lineage | None, Step]:
    """(the lineage in the report of the run in ``folder``, where it has one; that run's own step)."""
    files = RunFolder(folder)
    report = read_json(files.report)
    if kept := report.get("lineage"):
        found = lineage_from(kept)
        return found, replace(found.last, run=folder.name)  # a folder may have another name since
    return None, step_of(folder.name, report, read_json(files.inputs))


def _new_rows(report: dict[str, Any]) -> int | None:
    """All rows of a first run; of a continued one what its notice says."""
    if not report.get("parent"):
        return int(report["data"]["unlabelled"])
    told = (_NEWS.fullmatch(notice) for notice in report.get("notices", ()))
    return next((int(match[1].replace(",", "")) for match in told if match), None)


def _reached(step: Step) -> float:
    found = step.range
    return found.accuracy if found else 0.0


def _unpaired(one: Step, two: Step) -> float:
    """The standard error of a difference as if each had rows of its own: of the same rows it is less."""
    return (
        sum(step.range.accuracy * (1 - step.range.accuracy) / step.test_rows for step in (one, two) if step.range)
        ** 0.5
    )


_ADAPTER = TypeAdapter(Lineage)
