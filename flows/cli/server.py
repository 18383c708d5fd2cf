"""``server``, ``serve`` and ``automations``: a Prefect server, and what goes on by itself with its help."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

from rich.table import Table
from typer import Option

from listflow.data.files import short
from listflow.flows.cli.console import plain_console, prepare, print_json, print_line, say
from listflow.flows.cli.options import AsJson, RunPath, Verbose


def server(
    home: Annotated[Path, Option(help="Its folder: password, client.env, database.")] = Path(".server"),
    port: Annotated[int, Option(min=1, max=65535)] = 4200,
    reports: Annotated[Path, Option(help="The folder whose finished runs have a page at /reports.")] = Path("runs"),
) -> None:
    """Start a Prefect server on this machine, behind a password. On SQLite, unless
    PREFECT_API_DATABASE_CONNECTION_URL names a PostgreSQL database."""
    prepare(verbose=True)
    from listflow.flows.server.hosting import CLIENT, PASSWORD, host, prepared_server
    from listflow.flows.server.reports import PATH

    with prepared_server(home, port, reports) as ready:
        for line in (
            f"commands in this folder find it; elsewhere a client connects with: . {short(ready.home / CLIENT)}",
            f"in a browser: {ready.url}, with the whole line in {short(ready.home / PASSWORD)}",
            f"reports of finished runs: {ready.url}{PATH}, with user and password of that line",
        ):
            print_line(plain_console(stderr=True), line)
        host(ready)


def serve(
    folder: RunPath,
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

    wanted = Wanted(folder, cron, every, tuple(corpus or ()), name or folder.resolve().name)
    serve_run(wanted, partial(print_line, plain_console()))


def automations(
    remove: Annotated[bool, Option("--remove", help="Take them away again.")] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Have the Prefect server notice runs that died silently, and start crashed ones again. Again: no change."""
    prepare(verbose)
    from listflow.flows.server.automations import apply_automations, remove_automations
    from listflow.flows.server.client import check_server
    from listflow.flows.server.deployments import outdated_deployments

    check_server()
    found, console = remove_automations() if remove else apply_automations(), plain_console(stderr=as_json)
    table = Table("automation", "what it does", "now")
    for one in found:
        table.add_row(one.name, one.words, one.fate if one.enabled else f"{one.fate}, switched off")
    console.print(table if found else "the server has no automation of listflow", highlight=False)
    # An automation would start their runs again and again, to no avail.
    for words in outdated_deployments():
        say(words)
    if as_json:
        print_json([asdict(one) for one in found])
