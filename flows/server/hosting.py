"""A Prefect server of one's own: for this machine only, behind a password that is made once."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from listflow.data.errors import InputError
from listflow.data.files import refusing

HOST = "127.0.0.1"
PASSWORD, CLIENT, LOCK, DATABASE = "password", "client.env", ".lock", "prefect.db"
NAMED_DATABASE = "PREFECT_API_DATABASE_CONNECTION_URL"
# Its pages ask the address that they came from, be it another port, a tunnel or a proxy, and nobody else: those of
# its second version ask a firm that counts visits for its settings, analytics off or on.
SECOND_PAGES = "PREFECT_SERVER_UI_V2_ENABLED"
PAGES = {
    "PREFECT_UI_API_URL": "/api",
    SECOND_PAGES: "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}
# In memory, its own default, a server that is killed forgets who holds the place of a deployment, and nobody gets it.
LEASES = {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"}

PROGRAM = "from listflow.flows.server.program import start; start({})"


@dataclass(frozen=True)
class Hosted:
    """A server that may start. ``home`` holds its password, what clients read, and all that it remembers.

    reports: the folder whose finished runs it shows. is_beside: it ends with the process that started it.
    """

    home: Path
    port: int
    password: str
    reports: Path = Path("runs")
    is_beside: bool = False

    @property
    def url(self) -> str:
        """Where its pages are; its API is below, at /api."""
        return f"http://{HOST}:{self.port}"

    def command(self) -> list[str]:
        """What starts it. It is never asked to talk to a person, who may be a service manager.

        It imports nothing from the current folder: it holds the password.
        """
        asked = os.environ.get(SECOND_PAGES, "").lower() in {"true", "1"}
        given = f"{str(self.reports.absolute())!r}, first_pages_alone={not asked}, is_beside={self.is_beside}"
        return [
            sys.executable, "-P", "-c", PROGRAM.format(given),
            "--no-prompt", "server", "start", "--host", HOST, "--port", str(self.port),
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """Its variables: those of this process, the password, and SQLite in ``home`` unless a database is named."""
        kept = {name: value for name, value in os.environ.items() if name not in {"PREFECT_API_URL", "PREFECT_API_KEY"}}
        own = {
            "PYTHONSAFEPATH": "1",
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_API_AUTH_STRING": self.password,
            "PREFECT_API_AUTH_STRING": self.password,
        }
        database = {NAMED_DATABASE: f"sqlite+aiosqlite:///{self.home / DATABASE}"}
        return database | PAGES | LEASES | kept | own


@contextmanager
def prepared_server(home: Path, port: int, reports: Path = Path("runs"), is_beside: bool = False) -> Iterator[Hosted]:
    """A server that can start on ``port`` inside the block, the only one of ``home``. The rest is as in ``Hosted``.

    Its password and its clients' file are written for nobody else to read. InputError where a server of ``home`` is
    running, where the port is taken, where others may read the password, where nothing can be written in ``home``, or
    where its database is damaged.
    """
    home = home.resolve()
    if not home.exists():
        _check_port(port)  # a refusal leaves no folder behind
    with _storing(home):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _only_one(home):
        _check_port(port)
        if NAMED_DATABASE not in os.environ:
            _check_database(home / DATABASE)
        with _storing(home):
            hosted = Hosted(home, port, _password(home / PASSWORD), reports, is_beside)
            lines = f"export PREFECT_API_URL={hosted.url}/api\nexport PREFECT_API_AUTH_STRING={hosted.password}\n"
            _write_privately(home / CLIENT, lines)
        yield hosted


def _storing(home: Path) -> AbstractContextManager[None]:
    return refusing(
        lambda reason: f"{home}: nothing can be stored there ({reason}); free some space, or give another --home."
    )


def host(hosted: Hosted) -> NoReturn:
    """This process becomes the server: signals and exit code are its own, and the lock of its home stays held."""
    os.execve(sys.executable, hosted.command(), hosted.environment())


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Holds the lock of ``home``, which the system takes back when this process, or what it becomes, is gone."""
    with _storing(home):
        lock = os.open(home / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(lock, home)
        os.set_inheritable(lock, True)
        yield
    finally:
        os.close(lock)


def _take(lock: int, home: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            f"a server of {home} is running already; use that one, or give another --home and --port."
        ) from error


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                raise
            taken = "is taken" if error.errno == errno.EADDRINUSE else "is not for this user"
            raise InputError(
                f"port {port} of this machine {taken}; stop what listens there, or give another --port."
            ) from error


def _check_database(path: Path) -> None:
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            database.execute("PRAGMA schema_version")
    except sqlite3.OperationalError:
        return  # in use, say: the server may find another time
    except sqlite3.DatabaseError as error:
        raise InputError(
            f"{path}: {error}; it is the history of runs and nothing else: put a copy back, or move it away."
        ) from error


def _password(path: Path) -> str:
    if not path.exists():
        _write_privately(path, f"listflow:{secrets.token_urlsafe(24)}\n")
    if path.stat().st_mode & 0o077:
        raise InputError(f"others may read {path}; remove it, so that a new password is made, or `chmod 600` it.")
    return path.read_text("utf-8").strip()


def _write_privately(path: Path, text: str) -> None:
    aside = path.with_name(f"{path.name}.part")
    aside.unlink(missing_ok=True)
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(aside, path)
