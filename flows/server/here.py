"""The server of the current folder: one that `listflow up` or `listflow server` started here, and that nobody named.

A command uses it where nothing else is configured. It is asked nothing before it is known to be ours: it runs as long
as its lock is held, listens on this machine alone, and its file of addresses is for its owner.
"""

from __future__ import annotations

import base64
import fcntl
import http.client
import os
import re
from dataclasses import dataclass
from pathlib import Path

from listflow.flows.server.hosting import CLIENT, HOST, LOCK

HOME = Path(".server")
API_URL, AUTH_STRING = "PREFECT_API_URL", "PREFECT_API_AUTH_STRING"
SECONDS = 3.0
LINES = re.compile(rf"export {API_URL}=http://{re.escape(HOST)}:(\d{{1,5}})/api\nexport {AUTH_STRING}=(\S+)\n")


@dataclass(frozen=True)
class Address:
    """Where a server of this machine listens, and what it asks for."""

    port: int
    password: str

    @property
    def url(self) -> str:
        """Of its pages; its API is below, at /api."""
        return f"http://{HOST}:{self.port}"

    def answers(self) -> bool:
        """Whether a Prefect server answers there soon, and takes the password."""
        token = base64.b64encode(self.password.encode()).decode()
        connection = http.client.HTTPConnection(HOST, self.port, timeout=SECONDS)
        try:
            connection.request("GET", "/api/admin/version", headers={"Authorization": f"Basic {token}"})
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def is_hosting(home: Path) -> bool:
    """Whether a server of ``home`` runs, or is about to."""
    try:
        lock = os.open(home / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def address_of(home: Path) -> Address | None:
    """What the server of ``home`` wrote for its clients; None where that is missing, or not as it writes it."""
    path = home / CLIENT
    try:
        found = path.stat()
        lines = LINES.fullmatch(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    if lines is None or found.st_mode & 0o077 or found.st_uid != os.geteuid():
        return None
    return Address(int(lines[1]), lines[2])


def use(address: Address) -> None:
    """From here on this process, and what it starts, talks to the server at ``address``."""
    from prefect.context import refresh_global_settings_context

    os.environ.pop("PREFECT_API_KEY", None)  # it would be sent in the place of the password
    os.environ |= {API_URL: f"{address.url}/api", AUTH_STRING: address.password}
    refresh_global_settings_context()


def use_server_here(home: Path = HOME) -> str | None:
    """Uses the server of ``home`` where none is configured; a sentence where there is one and it cannot be used."""
    if os.environ.get(API_URL) or not (home / CLIENT).exists():
        return None
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return None
    address = address_of(home)
    if address is not None and is_hosting(home) and address.answers():
        use(address)
        return None
    why = "gives no answer" if is_hosting(home) else "is not running"
    return f"the server of {home} {why}, so its pages show nothing of this; `listflow up` starts it."
