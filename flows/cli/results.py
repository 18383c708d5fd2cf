"""``status``, ``report``, ``review`` and ``gc``: what runs that exist have come to, ask for, and can lose."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.table import Table
from typer import Argument, Option

from listflow.data.errors import InputError
from listflow.data.files import short
from listflow.flows.cli.console import counted, plain_console, prepare, print_json, print_line, say
from listflow.flows.cli.options import AsJson, RunPath, Verbose
from listflow.pipeline.run.status import RunStatus, find_runs, rounds_of, status_of
from listflow.pipeline.run.wording import percent, slid, slide_told
from listflow.pipeline.storage.lineage import Lineage
from listflow.pipeline.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from listflow.pipeline.results.report import RunReport

RUNS = Path("runs")
WARNING = "  warning"
SHOWN_TEXT = 200


def status(
    folder: Annotated[Path | None, Argument(help="The folder of a run; without it, all runs below runs/.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show all runs, or the rounds of one and what is left. Of all, those that cannot be read are named on stderr."""
    refused: list[InputError] = []
    found = [status_of(folder)] if folder else find_runs(RUNS, refused.append)
    console = plain_console(stderr=as_json)
    if not (found or refused):
        console.print(f"no runs in {RUNS}/; start one with: listflow run")
    elif folder:
        _show_run(found[0], console)
    elif found:
        console.print(_runs_table(found))
    for error in refused:
        say(error)
    if as_json:
        print_json([asdict(run) for run in found])


def report(folder: RunPath, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Draw report.html and the plots of a finished run again, and print its table."""
    prepare(verbose)
    from listflow.pipeline.results.outcome import report_of
    from listflow.pipeline.results.rendering import text_table, write_report

    found, console = report_of(folder), plain_console(stderr=as_json)
    write_report(found, folder)
    console.print(text_table(found))
    show_lineage(found, folder, console)
    print_line(console, short(RunFolder(folder).page))
    if as_json:
        print_json(found.to_dict(), is_ascii=False)


def review(
    folder: RunPath,
    file: Annotated[
        Path | None, Option(help="Answers: csv, tsv, jsonl or parquet with the columns row_id and label.")
    ] = None,
    by: Annotated[str, Option(help="Who answers, for the report.")] = "",
    verbose: Verbose = False,
) -> None:
    """Show the contested rows that a run asks about, or answer with --file."""
    prepare(verbose)
    console = plain_console()
    if file is None:
        _show_review(folder, console)
        return
    from listflow.pipeline.storage.review import answer_review, read_answers

    ended = answer_review(folder.resolve(), read_answers(str(file)), by.strip())
    verb = "is" if len(ended.rows) == 1 else "are"
    words = f"{counted(len(ended.rows), 'row')} {verb} labelled from round {ended.round + 1} on"
    console.print(words, highlight=False)


def gc(
    parent: Annotated[Path, Argument(metavar="RUNS", help="The folder that holds the runs.")] = RUNS,
    days: Annotated[float, Option(min=0, help="Only of runs that ended at least so many days ago.")] = 30,
    delete: Annotated[bool, Option("--delete", help="Do it. Without this, only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Free the disk of what finished runs no longer need. Says what would go, unless --delete is given."""
    from listflow.pipeline.storage.retention import removals, remove

    found, console = removals(parent, days, on_refused=say), plain_console(stderr=as_json)
    totals: dict[tuple[Path, str], int] = defaultdict(int)
    for removal in found:
        totals[removal.run, removal.what] += removal.bytes
    if totals:
        table = Table("run", "what", "MB")
        for (run, what), size in totals.items():
            table.add_row(short(run), what, f"{size / 1e6:.1f}")
        console.print(table)
    total = sum(removal.bytes for removal in found)
    freed = remove(found, on_refused=say) if delete else 0
    words = f"{freed / 1e6:.1f} MB freed" if delete else f"{total / 1e6:.1f} MB would be freed; do it with --delete"
    console.print(words if found else f"nothing to remove below {parent}", highlight=False)
    if as_json:
        print_json({"bytes": total, "freed": freed, "paths": [removal.path for removal in found]})


def show_lineage(report: RunReport, folder: Path, console: Console) -> None:
    """Below the table of a run that went on from another one: its lineage, and what is to be known of its new text."""
    if report.lineage:
        _show_lineage(report.lineage, folder, console)
    for warning in report.drift.warnings if report.drift else ():
        print_line(console, f"{WARNING}  {warning}")


def _show_lineage(found: Lineage, folder: Path, console: Console) -> None:
    from listflow.pipeline.results.rendering import lineage_table

    console.print(lineage_table(found))
    beside = folder.resolve().parent
    is_there = found.best is not None and RunFolder(beside / found.best.run).config.exists()
    if told := slide_told(found, f"{short(beside)}/" if is_there else ""):
        print_line(console, f"{WARNING}  {told}")


def _runs_table(found: list[RunStatus]) -> Table:
    lineages = [slid(run.lineage, run.state == "done") for run in found]
    table = Table("run", "id", "task", "round", "state", "final accuracy", *(["lineage"] if any(lineages) else []))
    for run, words in zip(found, lineages, strict=True):
        round_words = f"{run.reached} of {run.rounds}"
        state = "waits for review" if run.review else run.state
        cells = (short(run.folder), run.run_id, run.task, round_words, state, percent(run.accuracy), words)
        table.add_row(*cells[: len(table.columns)])
    return table


def _show_run(run: RunStatus, console: Console) -> None:
    table = Table("round", "pseudo labels", "model", "test accuracy", "verdict")
    for found in rounds_of(run.folder, run.rounds):
        verdict = "" if found.promoted is None else "promoted" if found.promoted else "kept"
        parts = [model.part if len(found.models) == 1 else f"{model.view}: {model.part}" for model in found.models]
        accuracy = "\n".join(percent(model.accuracy) for model in found.models)
        table.add_row(str(found.number or "teacher"), found.pseudo, "\n".join(parts), accuracy, verdict)
    console.print(f"{run.task}, run {run.run_id}: {run.state}, round {run.reached} of {run.rounds}", highlight=False)
    console.print(f"stage {run.stage}, head {run.head}", highlight=False)
    if run.views:
        believed = ", ".join(f"{view} {percent(weight)}" for view, weight in run.views.items())
        console.print(f"views, and how far each is believed: {believed}", highlight=False)
    console.print(table)
    if run.review:
        words = f"waits until {run.review.until} for a review of round {run.review.round}; look at it"
        print_line(console, f"{words}: listflow review {short(run.folder)}")
    if run.state == "interrupted":
        print_line(console, f"go on with: listflow resume {short(run.folder)}")
    elif run.state == "done":
        console.print(f"final accuracy {percent(run.accuracy)}; {short(RunFolder(run.folder).page)}", soft_wrap=True)
    if run.lineage:
        _show_lineage(run.lineage, run.folder, console)


def _show_review(folder: Path, console: Console) -> None:
    from listflow.pipeline.storage.review import CSV, open_review

    asked = open_review(folder.resolve())
    table = Table("row_id", "teacher", "why", "text")
    for row in asked.rows:
        table.add_row(row.row_id, row.label, row.why, row.shown(SHOWN_TEXT))
    console.print(table)
    path = short(asked.folder / CSV)
    for line in (
        f"labels: {', '.join(asked.labels)}",
        f"fill in the column label of {path} where you know it, the teacher's where it is right; then:",
        f"listflow review {short(folder)} --file {path}",
    ):
        print_line(console, line)
