"""``ingest``: new texts for a corpus that grows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from typer import Argument, Option

from listflow.data.errors import InputError
from listflow.data.files import short
from listflow.flows.cli.console import (
    Terminated,
    counted,
    counting,
    heeding_sigterm,
    interrupted,
    plain_console,
    prepare,
    print_json,
    print_line,
    say,
)
from listflow.flows.cli.options import AsJson, TextColumns, Verbose

if TYPE_CHECKING:
    from listflow.data.corpora.ingest import Ingested

CORPORA = Path("corpora")
STOPPED = "nothing was added. The same command again adds all of it, and nothing twice."
REASONS = {
    "exact": "were there before", "near": "differ from one before in case, space or punctuation only",
    "kept out": "are labelled or test rows", "blank": "have no text",
}  # fmt: skip


def ingest(
    corpus: Annotated[str, Argument(help="Its name; the first ingest makes it.")],
    files: Annotated[list[str], Argument(metavar="FILE...", help="Texts: csv, tsv, json, parquet, -, or a hub id.")],
    columns: TextColumns = None,
    keep_out: Annotated[
        list[str] | None, Option(metavar="FILE", help="Labelled or test rows that may not come in; repeatable.")
    ] = None,
    pairs: Annotated[bool, Option("--pairs", help="Rows have two texts, text_a and text_b.")] = False,
    home: Annotated[Path, Option(help="The folder of all corpora.")] = CORPORA,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Append new texts to a corpus: nothing twice, all of the files or none."""
    prepare(verbose)
    from listflow.data.corpora.ingest import ingest as append
    from listflow.data.shards import corpus_folder
    from listflow.data.task import Columns, parse_columns

    folder, console = corpus_folder(home, corpus), plain_console(stderr=as_json)
    with counting(console, "read", "rows read") as on_rows:
        named = parse_columns(columns) if columns else Columns()
        try:
            with heeding_sigterm():
                done = append(folder, files, named, is_pair=pairs, keep_out=keep_out or (), on_rows=on_rows)
        except (KeyboardInterrupt, Terminated) as stopped:
            interrupted(stopped, STOPPED)
        _tell(folder)  # before anything is printed, which may fail, and be it the end of the count
    _show(folder, done, console)
    if as_json:
        print_json({"added": done.added, "dropped": done.dropped, "corpus": asdict(done.manifest)})


def _show(folder: Path, done: Ingested, console: Console) -> None:
    console.print(f"{counted(done.added, 'new row')}; {folder.name} has {done.manifest.rows:,}", highlight=False)
    for reason, words in REASONS.items():
        if done.dropped.get(reason):
            console.print(f"  {done.dropped[reason]:,} left out: they {words}", highlight=False)
    print_line(console, f"use it with: --unlabelled {short(folder)}")


def _tell(folder: Path) -> None:
    """Tells the server. That it is away is no error: the rows are in, and the next ingest tells it."""
    from listflow.flows.server.events import corpus_added

    try:
        corpus_added(folder)
    except InputError as error:
        seen = "the rows are in, and the next ingest or a new start of `listflow serve` makes it good"
        say(f"{seen}, but no run could be told now: {error}")
