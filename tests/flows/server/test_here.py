"""The server of the current folder: found where nothing else is configured, and only where it runs and answers."""

from __future__ import annotations

import base64
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import prefect.context
import pytest
from prefect.context import SettingsContext
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from listflow.flows.server.here import address_of, is_hosting, use_server_here
from listflow.flows.server.hosting import HOST

PASSWORD = "listflow:secret"


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        self.send_response(200 if base64.b64decode(given).decode() == PASSWORD else 401)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *given: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    """Where one listens that knows the password."""
    with HTTPServer((HOST, 0), Server) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found.server_port
        found.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    prefect.context.refresh_global_settings_context()
    # A test server of this process lays its settings over the global ones.
    over = SettingsContext.__var__.set(None)  # type: ignore[arg-type]
    yield
    SettingsContext.__var__.reset(over)
    monkeypatch.undo()
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        os.environ.pop(name, None)
    prefect.context.refresh_global_settings_context()


def a_home(folder: Path, port: int, password: str = PASSWORD) -> Path:
    folder.mkdir()
    file = folder / "client.env"
    file.write_text(f"export PREFECT_API_URL=http://127.0.0.1:{port}/api\nexport PREFECT_API_AUTH_STRING={password}\n")
    file.chmod(0o600)
    (folder / ".lock").touch()
    return folder


@contextmanager
def held(home: Path) -> Iterator[None]:
    """As a server that runs holds it."""
    with (home / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_it_is_used_where_it_runs(tmp_path: Path, port: int) -> None:
    home = a_home(tmp_path / "home", port)
    with held(home):
        assert is_hosting(home)
        assert use_server_here(home) is None
    assert PREFECT_API_URL.value() == f"http://127.0.0.1:{port}/api"
    assert PREFECT_API_AUTH_STRING.value() == PASSWORD
    assert not is_hosting(home)


def test_what_is_configured_stays(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    home = a_home(tmp_path / "home", port)
    with held(home), temporary_settings({PREFECT_API_URL: "http://profile/api"}):
        assert use_server_here(home) is None
        assert PREFECT_API_URL.value() == "http://profile/api"
    monkeypatch.setenv("PREFECT_API_URL", "http://another/api")
    with held(home):
        assert use_server_here(home) is None
    assert os.environ["PREFECT_API_URL"] == "http://another/api"


def test_one_that_is_gone_or_does_not_answer_is_a_sentence(tmp_path: Path, port: int) -> None:
    home = a_home(tmp_path / "home", port)
    assert use_server_here(tmp_path / "nowhere") is None
    assert "is not running" in (use_server_here(home) or "")
    with HTTPServer((HOST, 0), Server, bind_and_activate=False) as silent:
        silent.server_bind()
        silent.server_activate()
        other = a_home(tmp_path / "other", silent.server_address[1])
        began = time.monotonic()
        with held(other):
            assert "gives no answer" in (use_server_here(other) or "")
        assert time.monotonic() - began < 10
    wrong = a_home(tmp_path / "wrong", port, "listflow:guess")
    with held(wrong):
        assert "gives no answer" in (use_server_here(wrong) or "")
    assert PREFECT_API_URL.value() is None


def test_a_file_that_it_did_not_write_is_not_believed(tmp_path: Path, port: int) -> None:
    home = a_home(tmp_path / "home", port)
    file = home / "client.env"
    assert address_of(home) is not None
    file.chmod(0o644)
    assert address_of(home) is None
    for text in (
        "", "export PREFECT_API_URL=http://example.org:80/api\nexport PREFECT_API_AUTH_STRING=a:b\n", "\xff",
        f"export PREFECT_API_URL=http://127.0.0.1:{port}@example.org/api\nexport PREFECT_API_AUTH_STRING=a:b\n",
        f"{'export X=1'}\nexport PREFECT_API_URL=http://127.0.0.1:{port}/api\nexport PREFECT_API_AUTH_STRING=a:b\n",
    ):  # fmt: skip
        file.write_bytes(text.encode("latin-1"))
        file.chmod(0o600)
        assert address_of(home) is None
        with held(home):
            use_server_here(home)
        assert PREFECT_API_URL.value() is None
