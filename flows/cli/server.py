"""``server``: a Prefect server for this machine, in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from listflow.flows.cli.console import short
from listflow.flows.environment import prepare
from listflow.flows.plain_console import plain_console


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
