"""``status`` and ``report``: what runs that exist have come to."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table
from typer import Argument

from listflow.data.errors import InputError
from listflow.flows.cli.console import say, short
from listflow.flows.cli.options import AsJson, Verbose
from listflow.flows.cli.run import RunFolder
from listflow.flows.environment import prepare
from listflow.flows.plain_console import plain_console
from listflow.pipeline.run.status import RunStatus, find_runs, rounds_of, status_of

RUNS = Path("runs")


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
        print(json.dumps([asdict(run) for run in found], default=str))


def report(folder: RunFolder, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Draw report.html and the plots of a finished run again, and print its table."""
    prepare(verbose)
    from listflow.pipeline.results.outcome import report_of
    from listflow.pipeline.results.report import text_table, write_report

    found, console = report_of(folder), plain_console(stderr=as_json)
    write_report(found, folder)
    console.print(text_table(found))
    console.print(short(folder / "report.html"), soft_wrap=True, highlight=False)
    if as_json:
        print(json.dumps(found.to_dict(), ensure_ascii=False))


def _runs_table(found: list[RunStatus]) -> Table:
    table = Table("run", "id", "task", "round", "state", "final accuracy")
    for run in found:
        round_words = f"{run.reached} of {run.rounds}"
        state = "waits for review" if run.review else run.state
        table.add_row(short(run.folder), run.run_id, run.task, round_words, state, _percent(run.accuracy))
    return table


def _show_run(run: RunStatus, console: Console) -> None:
    table = Table("round", "pseudo labels", "model", "test accuracy", "verdict")
    for found in rounds_of(run.folder, run.rounds):
        verdict = "" if found.promoted is None else "promoted" if found.promoted else "kept"
        table.add_row(str(found.number or "teacher"), found.pseudo, found.model, _percent(found.accuracy), verdict)
    console.print(f"{run.task}, run {run.run_id}: {run.state}, round {run.reached} of {run.rounds}", highlight=False)
    console.print(f"stage {run.stage}, head {run.head}", highlight=False)
    console.print(table)
    if run.review:
        console.print(
            f"waits until {run.review.until} for a review of round {run.review.round}; look at it: "
            f"listflow review {short(run.folder)}", soft_wrap=True, highlight=False,
        )  # fmt: skip
    if run.state == "interrupted":
        console.print(f"go on with: listflow resume {short(run.folder)}", soft_wrap=True, highlight=False)
    elif run.state == "done":
        console.print(f"final accuracy {_percent(run.accuracy)}; {short(run.folder / 'report.html')}", soft_wrap=True)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
