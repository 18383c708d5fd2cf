"""What runs in the process of a hosted server: Prefect's own command, with pages of ours before its own."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from listflow.flows.server.login import LoginFirst
from listflow.flows.server.reports import WithReports


def start(reports: str, first_pages_alone: bool, is_beside: bool) -> None:
    """``prefect`` with this process's arguments, whose server shows the finished runs below ``reports`` too.

    first_pages_alone: without the second version of Prefect's pages.
    is_beside: it ends with the process that holds the other end of its stdin, and by no signal.
    """
    if is_beside:
        threading.Thread(target=_end_with_starter, daemon=True).start()
    import prefect

    if first_pages_alone:
        # The setting only says which version comes first: a button leads to the other, and a browser remembers it.
        # Where their files are not found they are not served, and there is no button.
        prefect.__ui_v2_static_path__ = ""  # type: ignore[assignment]
    from prefect.cli import app
    from prefect.server.api import server

    write_at_once()
    make = server.create_app

    def make_first(*given: Any, **named: Any) -> FastAPI:
        # Later calls, of services within the server, are for the same app as it is.
        server.create_app = make
        return with_pages(make(*given, **named), Path(reports))

    server.create_app = make_first
    app()


def with_pages(app: FastAPI, reports: Path) -> FastAPI:
    """Prefect's ``app`` with reports, and with the login form before whatever needs it."""
    from prefect.settings import PREFECT_SERVER_API_AUTH_STRING, PREFECT_UI_API_URL, PREFECT_UI_SERVE_BASE

    password: Any = PREFECT_SERVER_API_AUTH_STRING.value()
    app.add_middleware(LoginFirst, api=PREFECT_UI_API_URL.value(), base=PREFECT_UI_SERVE_BASE.value())
    app.add_middleware(WithReports, folder=reports, password=password)
    return app


def write_at_once() -> None:
    """SQLite: a transaction waits for its turn where it begins.

    Prefect's read first, and "database is locked" ends those that write after another has written meanwhile, however
    long they may wait.
    """
    from prefect.server.database.configurations import AioSqliteConfiguration

    begin = AioSqliteConfiguration.begin_transaction

    def begin_transaction(self: Any, session: Any, with_for_update: bool = False) -> Any:
        return begin(self, session, with_for_update=True)

    AioSqliteConfiguration.begin_transaction = begin_transaction  # type: ignore[method-assign]


def _end_with_starter() -> None:
    """Nobody writes to stdin: it ends when the starter is gone, however it went. The server then ends in order."""
    os.read(0, 1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.kill(os.getpid(), signal.SIGTERM)
