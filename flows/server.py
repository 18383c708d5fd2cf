"""The Prefect server that a command talks to: the configured one, or a temporary one of its own."""

from __future__ import annotations

import signal

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL


def ensure_server() -> None:
    """Where no server is configured, starts Prefect's temporary one, out of the reach of Ctrl-C.

    Prefect would start it by itself, but a terminal sends Ctrl-C to child processes too, and then nobody is left
    to hear that the run was interrupted. Prefect stops it when this process ends and all is said.
    """
    if PREFECT_API_URL.value():
        return
    # A blocked signal stays blocked in a child process.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        SubprocessASGIServer().start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
