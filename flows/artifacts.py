"""What the Prefect UI shows of a run. Keys are stable, so every artifact has a history across runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.away import if_it_answers
from pipeline.report import RunReport, decimals, duration, headline, percent, trained_words
from pipeline.run import Progress, Run

Facts = dict[str, Any]
ROUNDS, BALANCE, WEIGHTS, CALIBRATION, REPORT, PROGRESS = (
    "list-rounds", "list-pseudo-labels", "list-meta-weights", "list-calibration", "list-report", "list-progress"
)  # fmt: skip
SECONDS_BETWEEN_UPDATES = 5.0
RETRIES = 2  # a busy server gets another chance to keep a table
MOST_CLASSES = 100


def show_rounds(history: Sequence[Facts]) -> None:
    """The tables of all rounds so far; each item holds what a round's three stages found."""
    for key, to_row, words in (
        (ROUNDS, _round_row, "Every round and its verdict"),
        (BALANCE, _balance_row, "Rows per class, by the teacher's top label"),
        (WEIGHTS, _weight_row, "Meta weights of the reweighted steps"),
    ):
        with if_it_answers(RETRIES):
            create_table_artifact([to_row(facts) for facts in history], key, words)


def show_report(report: RunReport) -> None:
    """Calibration of the final model, where test rows allow it, and the final report."""
    if report.figures.reliability:
        bins = [
            {"from": b.lower, "to": b.upper, "rows": b.count, "confidence": b.confidence, "accuracy": b.accuracy}
            for b in report.figures.reliability
        ]
        with if_it_answers(RETRIES):
            create_table_artifact(bins, CALIBRATION, "Confidence and accuracy of the final model on the test rows")
    with if_it_answers(RETRIES):
        create_markdown_artifact(_markdown(report), REPORT, headline(report))


class Meter:
    """One progress artifact a training, updated every few seconds at most."""

    def __init__(self) -> None:
        self._artifact: UUID | None = None
        self._training: tuple[int, int] | None = None
        self._updated = time.monotonic()

    def opened(self, run: Run) -> None:
        """Nothing to show before the first long training."""

    def moved(self, progress: Progress) -> None:
        """Shows a training step, unless one was shown a moment ago."""
        now = time.monotonic()
        if progress.loss is None or now - self._updated < SECONDS_BETWEEN_UPDATES:
            return
        self._updated = now
        with if_it_answers():
            self._show((progress.round, progress.total), 100 * progress.done / progress.total, _words(progress))

    def _show(self, training: tuple[int, int], done: float, words: str) -> None:
        if self._artifact is None or training != self._training:
            made = create_progress_artifact(done, PROGRESS, words)
            assert isinstance(made, UUID)  # outside of async code it is no coroutine
            self._artifact, self._training = made, training
        else:
            update_progress_artifact(self._artifact, done, words)


def _words(progress: Progress) -> str:
    model = f"student of round {progress.round}" if progress.round else "teacher"
    return f"{model}: {progress.phase}, step {progress.done} of {progress.total}, loss {decimals(progress.loss, 3)}"


def _round_row(facts: Facts) -> Facts:
    return {
        "round": facts["round"],
        "pseudo rows": facts["rows"],
        "mean confidence": percent(facts["mean_confidence"]),
        "test accuracy": percent(facts["test"]["accuracy"] if facts["test"] else None),
        "verdict": "promoted" if facts["promoted"] else "kept",
        "reason": facts["reason"],
        "agreement (kappa)": decimals(facts["agreement"]),
        "time": duration(facts["seconds"]),
    }


def _balance_row(facts: Facts) -> Facts:
    largest = sorted(facts["per_class"].items(), key=lambda item: -item[1])[:MOST_CLASSES]
    return {"round": facts["round"], **dict(largest)}


def _weight_row(facts: Facts) -> Facts:
    found = facts["reweight"]
    return {
        "round": facts["round"],
        "engine": found["engine"],
        "zero weights": percent(found["zero_share"]),
        "effective sample size": decimals(found["effective_sample_size"], 1),
        "steps with uniform weights": found["uniform_steps"],
    }


def _markdown(report: RunReport) -> str:
    measured = {"no labels": report.zero_shot, "labels alone": report.labelled_only, "final": report.final}
    rows = [
        f"| {name} | {percent(found.accuracy)} | {percent(found.macro_f1)} | {percent(found.ece)} |"
        for name, found in measured.items()
        if found
    ]
    table = ["| model | accuracy | macro F1 | calibration error |", "|---|---:|---:|---:|", *rows] if rows else []
    facts = (
        f"{trained_words(report)}; backbone {report.backbone.name}; {report.data.labelled} labelled, "
        f"{report.data.unlabelled:,} unlabelled and {report.data.test:,} test rows; {duration(report.seconds)}."
    )
    notices = [f"- {notice}" for notice in report.notices]
    title = f"# {report.task}, run {report.run_id}"
    return "\n".join([title, "", headline(report), "", *table, "", facts, "", *notices])
