"""What a client says of a server that it cannot use."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from commands import Cli
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_LOCAL_STORAGE_PATH, temporary_settings

from listflow.data.errors import InputError
from listflow.flows.server.client import check_server, ensure_server
from listflow.flows.server.hosting import HOST

pytest_plugins = ["flow_fixtures"]


class Refusing(BaseHTTPRequestHandler):
    code = 401

    def do_GET(self) -> None:
        self.send_response(self.code)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *given: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a server that answers everything with ``Refusing.code``."""
    with HTTPServer((HOST, 0), Refusing) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://{HOST}:{found.server_port}/api"
        found.shutdown()
        thread.join()


@pytest.mark.parametrize(("code", "words"), [(401, "refuses this client's password"), (404, "is no Prefect server")])
def test_a_server_that_refuses(refusing: str, monkeypatch: pytest.MonkeyPatch, code: int, words: str) -> None:
    monkeypatch.setattr(Refusing, "code", code)
    with temporary_settings({PREFECT_API_URL: refusing}), pytest.raises(InputError, match=words):
        check_server()


def test_no_server_and_one_that_is_away(cli: Cli, asked: list[str], tmp_path: Path) -> None:
    with temporary_settings({PREFECT_API_URL: None}), pytest.raises(InputError, match="PREFECT_API_URL names none"):
        check_server()
    with temporary_settings({PREFECT_API_URL: f"http://{HOST}:9/api"}):
        with pytest.raises(InputError, match="no Prefect server answers at"):
            ensure_server()
        result = cli("run", *asked, f"--run-dir={tmp_path / 'run'}")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "no Prefect server answers at http://127.0.0.1:9/api" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_home_that_cannot_be_written_costs_the_run_nothing(cli: Cli, asked: list[str], tmp_path: Path) -> None:
    """With a server of one's own Prefect keeps only what it would call cached there: the run believes its files."""
    (tmp_path / "file").touch()
    for _ in range(2):
        with temporary_settings({PREFECT_HOME: tmp_path / "file", PREFECT_LOCAL_STORAGE_PATH: tmp_path / "file" / "x"}):
            result = cli("run", *asked, f"--run-dir={tmp_path / 'run'}", "--rounds=1")
        assert result.returncode == 0, result.stderr
        assert (tmp_path / "run" / "final" / "manifest.json").exists()
