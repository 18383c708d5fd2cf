"""What the log of a flow run says, as the Prefect pages show it: a line a stage with its figures, and the outcome.

Prefect's own line at the end of a task, "Finished in state Completed()", says nothing and comes after every stage.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.logging import get_run_logger

from listflow.flows.pages.tables import accuracy_of, verdict_of
from listflow.pipeline.results.outcome import report_of
from listflow.pipeline.results.report import headline
from listflow.pipeline.run.run import Run
from listflow.pipeline.run.wording import CONFIDENCE, KAPPA, PSEUDO_ROWS, decimals, percent, points
from listflow.pipeline.storage.run_folder import RunFolder
from listflow.pipeline.training.committee import reached, reached_by_labels

OF_TASKS, FINISHED = "prefect.task_runs", "Finished in state "

Facts = dict[str, Any]
Told = Callable[[Run, Facts, str], str]


@contextmanager
def without_finished() -> Iterator[None]:
    """Inside the block no line says that a task is finished; one that failed says so, as do all other lines."""
    logger = logging.getLogger(OF_TASKS)
    logger.addFilter(_says_more)
    try:
        yield
    finally:
        logger.removeFilter(_says_more)


def log_stage(name: str, run: Run, facts: Facts, view: str) -> None:
    """Logs what a stage has found; ``name`` is its task's, ``view`` whose stage it is, empty for that of all."""
    for line in _TOLD[name](run, facts, view).splitlines():
        get_run_logger().info("%s", line)


def _says_more(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or not record.getMessage().startswith(FINISHED)


def _teacher(run: Run, facts: Facts, view: str) -> str:
    return f"start: {view} teacher{_on_test(facts)}"


def _views(run: Run, facts: Facts, view: str) -> str:
    weights = ", ".join(f"{name} view {percent(weight)}" for name, weight in facts["weights"].items())
    together = accuracy_of(reached(run, 0))
    return f"start: believed are {weights}" + (
        "" if together is None else f"; together {percent(together)} on test rows"
    )


def _pseudo(run: Run, facts: Facts, view: str) -> str:
    sure = f"{CONFIDENCE} {percent(facts['mean_confidence'])}"
    return f"round {facts['round']}: {facts['rows']:,} {PSEUDO_ROWS}, {sure}"


def _student(run: Run, facts: Facts, view: str) -> str:
    return f"round {facts['round']}: {view} student{_on_test(facts)}"


def _verdict(run: Run, facts: Facts, view: str) -> str:
    number = facts["round"]
    own, before = (accuracy_of(reached(run, each)) for each in (number, run.teacher_of(number)))
    begun = "the earlier model" if run.parent else "labels alone"
    changes = f"{points(own, before)} points on its teacher, {points(own, _begun(run))} on {begun}"
    figures = f"{percent(own)} on test rows ({changes}), " if own is not None else ""
    stop = "; the rounds end here" if facts["stop"] else ""
    why = f": {facts['reason']}" if run.config.rounds.promote == "gated" else ""
    return f"round {number}: {figures}{verdict_of(facts)}, {KAPPA} {decimals(facts['agreement'])}{why}{stop}"


def _outcome(run: Run, facts: Facts, view: str) -> str:
    return f"{headline(report_of(run.folder))}\nReport: {RunFolder(Path(facts['run'])).page}"


def _begun(run: Run) -> float | None:
    return accuracy_of(reached_by_labels(run))


def _on_test(facts: Facts) -> str:
    accuracy = accuracy_of(facts["test"])
    return " is trained" if accuracy is None else f" {percent(accuracy)} on test rows"


# By the names of tasks, which are promises.
_TOLD: dict[str, Told] = {
    "prompt_tune": _teacher,
    "weigh_views": _views,
    "pseudo_label": _pseudo,
    "train_student": _student,
    "judge": _verdict,
    "publish": _outcome,
}
