"""An ingest tells the server, and is done without one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from commands import Cli
from prefect.settings import PREFECT_API_URL, temporary_settings
from tiny import sentences, write_jsonl

from listflow.data.corpora.ingest import ingest
from listflow.data.task import Columns
from listflow.flows.server.events import corpus_added

pytest_plugins = ["flow_fixtures"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return tmp_path / "corpora" / "tickets"


def test_an_ingest_tells_the_server(server: None, corpus: Path) -> None:
    corpus.parent.mkdir()
    rows = write_jsonl(corpus.parent / "more.jsonl", sentences(3, 2, labelled=False))
    done = ingest(corpus, [str(rows)], Columns())
    assert corpus_added(corpus, done)
    assert not corpus_added(corpus, ingest(corpus, [str(rows)], Columns()))


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
