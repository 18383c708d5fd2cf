"""Contested rows as a person reads them in the Prefect UI: above the form, and as an artifact."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from listflow.flows.away import RETRIES, if_it_answers
from listflow.flows.markdown import code
from listflow.pipeline.run.review import CSV, Asked

REVIEW = "list-review"
SHOWN_ROWS, SHOWN_TEXT = 100, 300


def show_review(asked: Asked, run: Path) -> None:
    """The review queue as an artifact, and where to answer."""
    with if_it_answers(RETRIES):
        words = f"Rows that round {asked.round} asks a person about"
        create_markdown_artifact("\n".join(_page(asked, run)), REVIEW, words)


def form_text(asked: Asked, wrong: str) -> str:
    """What stands above the form: why it is shown again, if it is, what to write, and the rows."""
    lines = [f"**Not taken:** {code(wrong)}", ""] if wrong else []
    lines += [f"Which of these rows has the teacher of round {asked.round} labelled wrongly? {_labels(asked)}"]
    lines += [
        "Write a label behind the comma where you know it, in *Corrections*; a line left as it is is no answer.",
        "",
    ]
    return "\n".join([*lines, *_rows(asked)])


def lines_to_fill_in(asked: Asked) -> str:
    """A line for each shown row that lacks only its label: a line that is left so is no answer."""
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows((row.row_id, "") for row in asked.rows[:SHOWN_ROWS])
    return lines.getvalue()


def _page(asked: Asked, run: Path) -> Iterator[str]:
    yield f"# Round {asked.round}: {len(asked.rows)} contested rows"
    yield ""
    yield "Answer with *Resume* on the flow run, or fill in the column `label` of the file and run"
    yield code(f"listflow review {run} --file {asked.folder / CSV}")
    yield ""
    yield _labels(asked)
    yield ""
    yield from _rows(asked)


def _labels(asked: Asked) -> str:
    return f"Labels: {', '.join(code(label) for label in asked.labels)}."


def _rows(asked: Asked) -> Iterator[str]:
    """A list: a narrow form breaks its lines, and would cut the texts of a table."""
    for row in asked.rows[:SHOWN_ROWS]:
        yield f"- {code(row.row_id)} is {code(row.label)} ({code(row.why)}): {code(row.shown(SHOWN_TEXT))}"
    if len(asked.rows) > SHOWN_ROWS:
        yield f"\nand {len(asked.rows) - SHOWN_ROWS} more, in {code(str(asked.folder / CSV))}"
