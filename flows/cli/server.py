"""``server``: a Prefect server for this machine, in the foreground."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from rich.table import Table
from typer import Option

from listflow.data.files import short
from listflow.flows.cli.console import plain_console, prepare
from listflow.flows.cli.options import AsJson, RunFolder, Verbose


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


def serve(
    folder: RunFolder,
    cron: Annotated[str | None, Option(help="When to go on, such as '0 6 * * mon'.")] = None,
    every: Annotated[float | None, Option(help="Or: hours from one run to the next.")] = None,
    corpus: Annotated[
        list[str] | None,
        Option(help="Or: when `listflow ingest` added to this corpus, also before; repeatable."),
    ] = None,
    name: Annotated[str | None, Option(help="Of the deployment. Default: that of the run's folder.")] = None,
    verbose: Verbose = False,
) -> None:
    """Go on from a finished run again and again: on a schedule, or whenever a corpus grows. Needs a Prefect server."""
    prepare(verbose)
    from listflow.flows.run.deployment import Wanted, serve_run

    serve_run(Wanted(folder, cron, every, tuple(corpus or ()), name or folder.resolve().name))


def server(
    home: Annotated[Path, Option(help="Its folder: password, client.env, database.")] = Path(".server"),
    port: Annotated[int, Option(min=1, max=65535)] = 4200,
) -> None:
    """Start a Prefect server on this machine, behind a password. On SQLite, unless
    PREFECT_API_DATABASE_CONNECTION_URL names a PostgreSQL database."""
    prepare(verbose=True)
    from listflow.flows.server.hosting import CLIENT, PASSWORD, host, prepared_server

    with prepared_server(home, port) as ready:
        for line in (
            f"a client connects with: . {short(ready.home / CLIENT)}",
            f"in a browser: {ready.url}, with the whole line in {short(ready.home / PASSWORD)}",
        ):
            plain_console(stderr=True).print(line, soft_wrap=True, highlight=False)
        host(ready)
