"""``automations``: what a server does by itself about runs that crash."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

from rich.table import Table
from typer import Option

from listflow.flows.cli.options import AsJson, Verbose
from listflow.flows.environment import prepare
from listflow.flows.plain_console import plain_console


def automations(
    remove: Annotated[bool, Option("--remove", help="Take them away again.")] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Have the Prefect server notice runs that died silently, and start crashed ones again. Again: no change."""
    prepare(verbose)
    from listflow.flows.server.automations import apply_automations, remove_automations
    from listflow.flows.server.client import check_server

    check_server()
    found, console = remove_automations() if remove else apply_automations(), plain_console(stderr=as_json)
    table = Table("automation", "what it does", "now")
    for one in found:
        table.add_row(one.name, one.words, one.fate if one.enabled else f"{one.fate}, switched off")
    console.print(table if found else "the server has no automation of listflow", highlight=False)
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
