"""Prefect's temporary server, for a command that has no other: it is heard when it dies, and ends with its starter.

Prefect asks one that has died for its health again and again, until its time is up, and says nothing of the reason.
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import httpx
import prefect
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_HOME, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS, get_current_settings

from listflow.data.errors import InputError

# The program that the child runs. Its stdin is a pipe that nobody writes to: it ends when the starter is gone, however
# it went, and the server then ends in order.
PROGRAM = """\
import os, runpy, signal, threading

def end_with_starter():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=end_with_starter, daemon=True).start()
runpy.run_module("uvicorn", run_name="__main__", alter_sys=True)
"""
LEVELS = ("PREFECT_SERVER_LOGGING_LEVEL", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL")
# The last line of a traceback: a name with dots, and what it says.
REASON = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Denied)\w*: .+)$", re.MULTILINE)
ATTEMPTS = 3  # another process may take the port first
SECONDS_BETWEEN_LOOKS = 0.1


class TemporaryServer(SubprocessASGIServer):
    """Prefect's own, which every client of this process finds as soon as one was made."""

    _said: IO[bytes] | None = None

    def begin(self) -> None:
        """Starts the child, and does not wait for it; it ends with this process."""
        if not self.running:
            atexit.register(self.stop)
            self.running = True
        self.port = self.find_available_port()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self.server_process = self._begin(self._said)

    def start(self, timeout: int | None = None) -> None:
        """Returns when it answers; InputError, with the reason, when it has died or does not answer in time."""
        if self.running and self._said is None:
            return
        seconds = timeout or PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
        try:
            for attempt in range(1, ATTEMPTS + 1):
                if self._said is None:
                    self.begin()
                process, said = self.server_process, self._said
                assert process is not None
                assert said is not None
                self._said = None
                with said:
                    if self._answers(process, seconds):
                        return
                    reason = _reason(said)
                if attempt == ATTEMPTS or "address already in use" not in reason:
                    raise InputError(_refusal(process.poll() is not None, reason, seconds))
        except BaseException:
            self.stop()
            raise

    def _begin(self, said: IO[bytes]) -> subprocess.Popen[bytes]:
        """The child, which finds no module in the current folder, and writes what it complains of to ``said``."""
        own = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        environment = {**os.environ, **get_current_settings().to_environment_variables(exclude_unset=True), **own}
        # Where nobody is to hear it, it tells this process why it dies.
        is_silent = environment.get(LEVELS[0]) == "CRITICAL"
        heard = dict.fromkeys(LEVELS, "ERROR") if is_silent else {}
        return subprocess.Popen(
            [
                sys.executable, "-P", "-c", PROGRAM, "--app-dir", str(prefect.__module_path__.parent), "--factory",
                "prefect.server.api.server:create_app", "--host", "127.0.0.1", "--port", str(self.port),
                "--log-level", "error", "--lifespan", "on",
            ],
            env=environment | heard, stdin=subprocess.PIPE, stderr=said if is_silent else None,
        )  # fmt: skip

    def _answers(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        """True when ``process`` has answered, False when it has died or ``seconds`` are over."""
        end = time.monotonic() + seconds
        with httpx.Client() as client:
            while process.poll() is None and time.monotonic() < end:
                try:
                    if client.get(f"{self.api_url}/health").status_code == httpx.codes.OK:
                        return True
                except httpx.TransportError:
                    pass
                time.sleep(SECONDS_BETWEEN_LOOKS)
        return False


@contextmanager
def starting_temporary_server() -> Iterator[None]:
    """Begins it, unless this process has one, and waits for it at the end of the block, out of the reach of Ctrl-C.

    InputError where it does not start. A terminal sends Ctrl-C to child processes too, and then nobody is left to hear
    that the run was interrupted. Prefect stops it when this process ends and all is said.
    """
    _check_home()
    server = TemporaryServer()
    if not server.running:
        with _unreached():
            server.begin()
    yield
    with _unreached():
        server.start()


@contextmanager
def _unreached() -> Iterator[None]:
    """A signal that is blocked stays blocked in a child process."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _check_home() -> None:
    home = PREFECT_HOME.value()
    try:
        home.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=home).close()
    except OSError as error:
        raise InputError(
            f"{home}: Prefect's temporary server cannot write there ({error.strerror}); set PREFECT_HOME to a folder "
            "that can be written."
        ) from error


def _reason(said: IO[bytes]) -> str:
    """What stands last in what was ``said``: the error that ended the server; empty where there is none."""
    said.seek(0)
    found = REASON.findall(said.read().decode("utf-8", "replace"))
    return found[-1].strip() if found else ""


def _refusal(is_dead: bool, reason: str, seconds: float) -> str:
    why = f"did not start ({reason})" if reason else "ended at once" if is_dead else f"gave no answer in {seconds:g} s"
    home = PREFECT_HOME.value()
    return (
        f"Prefect's temporary server {why}; its folder is {home}: mend what is there, or set PREFECT_HOME to "
        "another one (--verbose shows what it said)."
    )
