"""Contested rows as a person reads them in the Prefect UI: above the form, and as an artifact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from pipeline.review_state import CSV, Asked

REVIEW = "list-review"
SHOWN_IN_FORM, SHOWN_TEXT = 100, 300


def show_review(asked: Asked, run: Path) -> None:
    """The review queue as an artifact, and where to answer."""
    create_markdown_artifact("\n".join(_page(asked, run)), REVIEW, f"Rows that round {asked.round} asks a person about")


def form_text(asked: Asked, wrong: str) -> str:
    """What stands above the form: why it is shown again, if it is, what to write, and the rows."""
    lines = [f"**Not taken:** {_code(wrong)}", ""] if wrong else []
    lines += [f"Which of these rows has the teacher of round {asked.round} labelled wrongly? {_labels(asked)}", ""]
    return "\n".join([*lines, *_table(asked)])


def _page(asked: Asked, run: Path) -> Iterator[str]:
    yield f"# Round {asked.round}: {len(asked.rows)} contested rows"
    yield ""
    yield "Answer with *Resume* on the flow run, or fill in the column `label` of the file and run"
    yield _code(f"listflow review {run} --file {asked.folder / CSV}")
    yield ""
    yield _labels(asked)
    yield ""
    yield from _table(asked)


def _labels(asked: Asked) -> str:
    return f"Labels: {', '.join(_code(label) for label in asked.labels)}."


def _table(asked: Asked) -> Iterator[str]:
    yield "| row_id | teacher | why | text |"
    yield "|---|---|---|---|"
    for row in asked.rows[:SHOWN_IN_FORM]:
        yield f"| {' | '.join(map(_code, (row.row_id, row.label, row.why, row.shown(SHOWN_TEXT))))} |"
    if len(asked.rows) > SHOWN_IN_FORM:
        yield f"\nand {len(asked.rows) - SHOWN_IN_FORM} more, in {_code(str(asked.folder / CSV))}"


def _code(text: str) -> str:
    """``text`` as code: whatever stands in a corpus, a page shows it and neither loads nor runs it."""
    return f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', chr(92) + '|')}`"
