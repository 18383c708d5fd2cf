"""An ingest tells the server, and is done without one."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import prefect
import pytest
from commands import COMMAND, Cli
from prefect.settings import PREFECT_API_URL, temporary_settings
from tiny import sentences, write_jsonl

from listflow.data.corpora.ingest import ingest
from listflow.data.errors import InputError
from listflow.data.shards import read_manifest
from listflow.data.task import Columns
from listflow.flows.server.events import corpus_added

pytest_plugins = ["flow_fixtures"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return tmp_path / "corpora" / "tickets"


def test_an_ingest_tells_the_server(server: None, corpus: Path) -> None:
    corpus.parent.mkdir()
    rows = write_jsonl(corpus.parent / "more.jsonl", sentences(3, 2, labelled=False))
    ingest(corpus, [str(rows)], Columns())
    assert corpus_added(corpus)
    ingest(corpus, [str(rows)], Columns())
    assert not corpus_added(corpus)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The events that a server has heard, which takes anything that is posted."""
    heard: list[dict[str, Any]] = []

    class Stub(BaseHTTPRequestHandler):
        def _answer(self, content: bytes, code: int = 200) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            # As one that asks for no tokens against forged requests.
            is_token = "csrf" in self.path
            self._answer(b"" if is_token else json.dumps(prefect.__version__).encode(), 404 if is_token else 200)

        def do_POST(self) -> None:
            heard.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer(b"{}")

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Stub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{server.server_port}/api"}):
            monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
            yield heard
        server.shutdown()


def told(heard: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(event["payload"]["added"], event["payload"]["rows"]) for event in heard]


def test_what_was_not_told_is_told_by_the_next_ingest(stub: list[dict[str, Any]], corpus: Path) -> None:
    corpus.parent.mkdir()
    rows = [str(write_jsonl(corpus.parent / f"{seed}.jsonl", sentences(3, seed, labelled=False))) for seed in (2, 3)]
    ingest(corpus, rows[:1], Columns())
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), pytest.raises(InputError):
        corpus_added(corpus)
    ingest(corpus, rows, Columns())
    assert corpus_added(corpus)
    assert not corpus_added(corpus)
    assert told(stub) == [(3, 3), (3, 6)]


@pytest.mark.parametrize("out", ["/dev/full", "| true"])
def test_the_server_hears_before_anything_is_printed(
    stub: list[dict[str, Any]], environment: dict[str, str], tmp_path: Path, out: str
) -> None:
    """Where stdout is a full disk, or a pipe that nobody reads to its end."""
    write_jsonl(tmp_path / "more.jsonl", sentences(3, 2, labelled=False))
    command = shlex.join([*COMMAND, "ingest", "tickets", "more.jsonl"])
    command += f" {out}" if out.startswith("|") else f" > {out}"
    address = {"PREFECT_API_URL": os.environ["PREFECT_API_URL"]}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, env=environment | address, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert told(stub) == [(3, 3)]
    assert "Traceback" not in done.stderr
    assert read_manifest(tmp_path / "corpora" / "tickets").rows == 3


def test_an_ingest_without_its_server_is_done_and_says_so(cli: Cli, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "more.jsonl", sentences(3, 2, labelled=False))
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        began = time.monotonic()
        done = cli("ingest", "tickets", rows, f"--home={tmp_path}")
    assert time.monotonic() - began < 5
    assert done.returncode == 0
    assert "3 new rows" in done.stdout
    assert done.stderr.count("\n") == 1
    assert "the rows are in" in done.stderr
    assert "no Prefect server answers at http://127.0.0.1:9/api" in done.stderr
