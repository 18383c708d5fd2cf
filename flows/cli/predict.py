"""``predict`` and ``export``: finished runs put to use, for labels or as a plain model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from listflow.flows.cli.console import counted, counting, plain_console, prepare, print_line, say
from listflow.flows.cli.options import RunPath, TextColumns, Verbose


def predict(
    folders: Annotated[list[Path], Argument(metavar="RUN...", help="The folders of runs on the same backbone.")],
    input: Annotated[str, Option(help="File of texts: csv, tsv, json, parquet; - for stdin.")],
    output: Annotated[Path, Option(help="Where they go: csv, tsv, jsonl or parquet.")],
    columns: TextColumns = None,
    task_column: Annotated[str | None, Option(help="Column that names the one run to label each row.")] = None,
    int8: Annotated[bool, Option("--int8", help="Multiply in 8 bits: faster, and some labels may differ.")] = False,
    force: Annotated[bool, Option("--force", help="Replace any file that has the name of the output.")] = False,
    verbose: Verbose = False,
) -> None:
    """Label the texts of a file with the final models of runs."""
    prepare(verbose)
    from listflow.pipeline.results.drift import strange_texts
    from listflow.pipeline.results.predictors import Predictors

    with counting(plain_console(stderr=True), "load the model", "rows") as on_rows:
        predictors = Predictors.open(folders, "int8" if int8 else None)
        for notice in predictors.notices(input, columns):
            say(notice)
        if task_column is None:
            rows = predictors.predict_file(input, output, columns, on_rows, force)
        else:
            rows = predictors.predict_file_by_task(input, output, task_column, columns, on_rows, force)
    print_line(plain_console(), f"{counted(rows, 'row')} labelled in {output}")
    for sentence in strange_texts(predictors.unknown, folders):
        print_line(plain_console(stderr=True), sentence)


def export(
    folder: RunPath,
    output: Annotated[Path, Option(help="A new folder for the model.")],
    format: Annotated[
        Literal["transformers", "onnx"], Option(help="What it is written as; onnx needs the extra of that name.")
    ] = "transformers",
    verbose: Verbose = False,
) -> None:
    """Merge a run's final model into a plain transformers folder, or into ONNX graphs."""
    prepare(verbose)
    from listflow.pipeline.results.export import export as write

    with plain_console(stderr=True).status("merge the model"):
        write(folder, output, format)
    print_line(plain_console(), f"plain model in {output}; the code to use it is in {output / 'README.md'}")
