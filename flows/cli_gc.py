"""``gc``: what old runs can lose."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated

from rich.table import Table
from typer import Argument, Option

from listflow.flows.cli.console import say, short
from listflow.flows.cli.options import AsJson
from listflow.flows.cli.results import RUNS
from listflow.flows.plain_console import plain_console


def gc(
    parent: Annotated[Path, Argument(metavar="RUNS", help="The folder that holds the runs.")] = RUNS,
    days: Annotated[float, Option(min=0, help="Only of runs that ended at least so many days ago.")] = 30,
    delete: Annotated[bool, Option("--delete", help="Do it. Without this, only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Free the disk of what finished runs no longer need. Says what would go, unless --delete is given."""
    from listflow.pipeline.storage.run_folder import removals, remove

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
    freed = remove(found) if delete else 0
    words = f"{freed / 1e6:.1f} MB freed" if delete else f"{total / 1e6:.1f} MB would be freed; do it with --delete"
    console.print(words if found else f"nothing to remove below {parent}", highlight=False)
    if as_json:
        print(json.dumps({"bytes": total, "freed": freed, "paths": [str(removal.path) for removal in found]}))
