"""A hosted server beside a command: it starts with it, is heard when it dies, and ends with it, however that went."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from listflow.data.errors import InputError
from listflow.data.files import short
from listflow.flows.server.here import Address, address_of, is_hosting
from listflow.flows.server.hosting import Hosted, prepared_server

LOG = "server.log"
PATIENCE = 180.0  # seconds for a first start on a slow machine
SECONDS_TO_END, SECONDS_BETWEEN_LOOKS = 20.0, 0.25
# Its log is there to be read when something went wrong, also where the command itself is quiet.
TELLING = {"PREFECT_SERVER_LOGGING_LEVEL": "WARNING", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING"}
# What ends the command ends the server after it: a terminal and a service manager send these to both.
ITS_STARTERS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class Server:
    """A server that this process talks to, and that may end before it."""

    def __init__(self, address: Address, wait: Callable[[], object]) -> None:
        self.address = address
        self._wait = wait
        self._is_leaving = threading.Event()

    def when_it_ends(self, act: Callable[[], None]) -> None:
        """Calls ``act`` from a thread when the server ends before ``leave`` is called."""

        def watch() -> None:
            self._wait()
            if not self._is_leaving.is_set():
                act()

        threading.Thread(target=watch, daemon=True).start()

    def leave(self) -> None:
        """From here on its end is of no account."""
        self._is_leaving.set()


@contextmanager
def server_beside(home: Path, port: int, reports: Path) -> Iterator[Server]:
    """A server of ``home`` that starts now, answers within the block, and ends with it.

    InputError as of ``prepared_server``, and where the server does not start.
    """
    with prepared_server(home, port, reports, is_beside=True) as hosted:
        process = _begin(hosted)
    server = Server(Address(port, hosted.password), process.wait)
    try:
        _wait_for(server.address, process, hosted.home / LOG)
        yield server
    finally:
        server.leave()  # also where an exception ends the block: that the server ends now is no news
        _end(process)


def server_there(home: Path) -> Server:
    """The server of ``home``, which another process has started, and which stays when this one ends.

    It may be about to start. InputError where it does not answer.
    """
    end = time.monotonic() + PATIENCE
    while (address := address_of(home)) is None or not address.answers():
        if not is_hosting(home) or time.monotonic() > end:
            raise InputError(f"the server of {home} does not answer; stop it, then give this command again.")
        time.sleep(SECONDS_BETWEEN_LOOKS)

    def wait() -> None:
        while is_hosting(home):
            time.sleep(SECONDS_BETWEEN_LOOKS)

    return Server(address, wait)


def _begin(hosted: Hosted) -> subprocess.Popen[bytes]:
    """The process of the server, which holds the lock of its home from now on and writes to its log alone."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ITS_STARTERS)  # a blocked signal stays blocked in a child
    try:
        with (hosted.home / LOG).open("wb") as log:
            return subprocess.Popen(
                hosted.command(), env=hosted.environment() | TELLING, stdin=subprocess.PIPE, stdout=log, stderr=log,
                close_fds=False,  # for the lock; Python hands on nothing else
            )  # fmt: skip
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait_for(address: Address, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not address.answers():
        if process.poll() is not None or time.monotonic() > end:
            why = f"gave no answer in {PATIENCE:g} s" if process.poll() is None else "did not start"
            raise InputError(f"the Prefect server {why}; {short(log)} says why in its last lines.")
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()  # which is what it ends with
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
