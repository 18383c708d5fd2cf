"""``predict``: the labels of one finished run, or of several on one backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from listflow.flows.cli.options import Verbose
from listflow.flows.counting import counted
from listflow.flows.environment import prepare
from listflow.flows.plain_console import plain_console


def predict(
    folders: Annotated[list[Path], Argument(metavar="RUN...", help="The folders of runs on the same backbone.")],
    input: Annotated[str, Option(help="File of texts: csv, tsv, jsonl or parquet.")],
    output: Annotated[Path, Option(help="Where labels and probabilities go; the same formats.")],
    columns: Annotated[str | None, Option(help="Column names, such as text=body.")] = None,
    task_column: Annotated[str | None, Option(help="Column that names the one run to label each row.")] = None,
    verbose: Verbose = False,
) -> None:
    """Label the texts of a file with the final models of runs."""
    prepare(verbose)
    from listflow.pipeline.results.predictors import Predictors

    console = plain_console(stderr=True)
    with console.status("load the model") as state:
        predictors, done = Predictors.open(folders), 0

        def on_rows(rows: int) -> None:
            nonlocal done
            done += rows
            state.update(f"{done:,} rows")

        if task_column is None:
            rows = predictors.predict_file(input, output, columns, on_rows)
        else:
            rows = predictors.predict_file_by_task(input, output, task_column, columns, on_rows)
    plain_console().print(f"{counted(rows, 'row')} labelled in {output}", soft_wrap=True, highlight=False)
