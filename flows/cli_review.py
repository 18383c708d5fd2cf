"""``review``: what a run asks a person about, and the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer import Option

from listflow.flows.cli.console import short
from listflow.flows.cli.options import Verbose
from listflow.flows.cli.run import RunFolder
from listflow.flows.counting import counted
from listflow.flows.environment import prepare

SHOWN_TEXT = 200


def review(
    folder: RunFolder,
    file: Annotated[
        Path | None, Option(help="Answers: csv, tsv, jsonl or parquet with the columns row_id and label.")
    ] = None,
    by: Annotated[str, Option(help="Who answers, for the report.")] = "",
    verbose: Verbose = False,
) -> None:
    """Show the contested rows that a run asks about, or answer with --file."""
    prepare(verbose)
    console = Console()
    if file is None:
        _show(folder, console)
        return
    from listflow.data.answers import read_answers
    from listflow.pipeline.run.review import answer_review

    ended = answer_review(folder.resolve(), read_answers(str(file)), by.strip())
    verb = "is" if len(ended.rows) == 1 else "are"
    words = f"{counted(len(ended.rows), 'row')} {verb} labelled from round {ended.round + 1} on"
    console.print(words, highlight=False)


def _show(folder: Path, console: Console) -> None:
    from listflow.pipeline.run.review import CSV, open_review

    asked = open_review(folder.resolve())
    table = Table("row_id", "teacher", "why", "text")
    for row in asked.rows:
        table.add_row(*map(escape, (row.row_id, row.label, row.why, row.shown(SHOWN_TEXT))))
    console.print(table)
    path = short(asked.folder / CSV)
    for line in (
        f"labels: {', '.join(asked.labels)}",
        f"fill in the column label of {path} where you know it, the teacher's where it is right; then:",
        f"listflow review {short(folder)} --file {path}",
    ):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
