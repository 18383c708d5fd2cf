"""The tables of a run as rows of cells: its rounds, its pseudo labels, what its meta weights said, its calibration.

What a person looks for comes first and texts come last, as a page of 1,024 pixels cuts a table at its right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from listflow.data.errors import shortened
from listflow.pipeline.method.metrics import ReliabilityBin
from listflow.pipeline.results.outcome import view_reports
from listflow.pipeline.results.report import ViewReport
from listflow.pipeline.run.run import Run
from listflow.pipeline.run.wording import (
    ACCURACY,
    CONFIDENCE,
    EFFECTIVE_ROWS,
    KAPPA,
    PSEUDO_ROWS,
    UNIFORM_STEPS,
    ZERO_WEIGHTS,
    decimals,
    percent,
    points,
)
from listflow.pipeline.storage.markdown import code, plain
from listflow.pipeline.training.committee import reached, reached_by_labels
from listflow.pipeline.training.review import weighed_rows

MOST_LABELS, MOST_ROWS, LONGEST_TEXT = 100, 10, 50
NOT_COMPUTED = "not computed"

Facts = dict[str, Any]


def rounds_table(run: Run, history: Sequence[Facts]) -> Iterator[Facts]:
    """A row for the start and for each round: its verdict, what it reached, what it changed, what each view reached."""
    begun = "on the earlier model" if run.parent else "on labels alone"
    accuracies = [accuracy_of(reached(run, number)) for number in range(len(history) + 1)]
    alone, gated = accuracy_of(reached_by_labels(run)), run.config.rounds.promote == "gated"
    start = {view.view: _own(view) for view in view_reports(run)}
    first = {"round": 0, "verdict": "start", ACCURACY: percent(accuracies[0]), "on its teacher": ""}
    yield (
        first | {begun: points(accuracies[0], alone), **_by_view(start), KAPPA: ""} | ({"reason": ""} if gated else {})
    )
    for facts in history:
        own = accuracies[facts["round"]]
        found = {view: accuracy_of(student["test"]) for view, student in facts["students"].items()}
        row = {
            "round": facts["round"],
            "verdict": verdict_of(facts),
            ACCURACY: percent(own),
            "on its teacher": points(own, accuracies[facts["teacher_round"]]),
            begun: points(own, alone),
            **_by_view({view: percent(found[view]) if view in found else NOT_COMPUTED for view in start}),
            KAPPA: decimals(facts["agreement"]),
        }
        yield row | ({"reason": plain(facts["reason"])} if gated else {})


def verdict_of(facts: Facts) -> str:
    """``promoted`` where the student teaches from the next round on, ``kept`` where its teacher does."""
    return "promoted" if facts["promoted"] else "kept"


def accuracy_of(metrics: Mapping[str, float] | None) -> float | None:
    """The accuracy among ``metrics``; None without test rows."""
    return metrics["accuracy"] if metrics else None


def believed(views: Sequence[ViewReport]) -> str:
    """``prompt view 33.2 %, text view 66.8 %``: how far each view is believed; empty for none."""
    return ", ".join(f"{view.view} view {percent(view.weight)}" for view in views)


def balance_table(history: Sequence[Facts]) -> Iterator[Facts]:
    """A row for each round: how many rows the teacher labelled, how sure it was, and the rows of each class."""
    for facts in history:
        largest = sorted(facts["per_class"].items(), key=lambda item: -item[1])[:MOST_LABELS]
        told = {"round": facts["round"], PSEUDO_ROWS: facts["rows"], CONFIDENCE: percent(facts["mean_confidence"])}
        # A class may have the name of a column: its rows stand under its own, and the facts of the round go.
        yield told | dict(largest)


def weights_table(history: Sequence[Facts]) -> Iterator[Facts]:
    """A row for each student of a round: how its meta weights were spread."""
    for facts in history:
        for view, student in facts["students"].items():
            found = student["reweight"]
            yield {
                "round": facts["round"],
                "view": view,
                ZERO_WEIGHTS: percent(found["zero_share"]),
                EFFECTIVE_ROWS: decimals(found["effective_sample_size"], 1),
                UNIFORM_STEPS: found["uniform_steps"],
                "engine": found["engine"],
            }


def weighed_table(run: Run, number: int) -> Iterator[Facts]:
    """The rows of a round that its meta weights spoke for, and below them those against, the extreme ones first."""
    for rows in weighed_rows(run, number, MOST_ROWS):
        for row in rows:
            yield {
                "weight": decimals(row.weight), "label": code(row.label), "row id": code(row.row_id),
                "text": code(shortened(" ".join(row.text.split()), LONGEST_TEXT)),
            }  # fmt: skip


def calibration_table(bins: Sequence[ReliabilityBin]) -> Iterator[Facts]:
    """A row for each bin of confidence; one without rows has no figures."""
    for part in bins:
        figures = (percent(part.confidence), percent(part.accuracy)) if part.count else ("", "")
        yield {
            "confidence": f"{100 * part.lower:.0f} to {100 * part.upper:.0f} %", "test rows": part.count,
            CONFIDENCE: figures[0], ACCURACY: figures[1],
        }  # fmt: skip


def _by_view(cells: Mapping[str, str]) -> dict[str, str]:
    return {f"{view} view": cell for view, cell in cells.items()}


def _own(view: ViewReport) -> str:
    return percent(view.start.accuracy if view.start else None)
