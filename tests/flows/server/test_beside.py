"""What is told of a server that ends, and what is not."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from listflow.flows.server import beside
from listflow.flows.server.beside import Server, server_beside

UNTIL_STDIN_ENDS = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"


@dataclass
class Hosted:
    """A process that ends with its stdin, as a server does."""

    home: Path
    password: str = "p"

    def command(self) -> list[str]:
        return [sys.executable, "-c", UNTIL_STDIN_ENDS]

    def environment(self) -> dict[str, str]:
        return dict(os.environ)


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was told; ``server_beside`` starts a process that is no server."""

    @contextmanager
    def prepared(home: Path, *_: object, **__: object) -> Iterator[Hosted]:
        yield Hosted(home)

    monkeypatch.setattr(beside, "prepared_server", prepared)
    monkeypatch.setattr(beside, "_wait_for", lambda *_: None)
    return []


def watched(server: Server, ended: list[str]) -> None:
    server.when_it_ends(lambda: ended.append("ended"))


def settled() -> None:
    """Every watching thread has come to its end."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.name.endswith("(watch)"):
            thread.join(10)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
def test_an_end_of_the_block_is_no_news_however_it_ends(
    tmp_path: Path, ended: list[str], error: type[BaseException] | None
) -> None:
    with suppress(KeyboardInterrupt, ValueError), server_beside(tmp_path, 1, tmp_path) as server:
        watched(server, ended)
        if error is not None:
            raise error
    settled()
    assert not ended


def test_a_server_that_dies_is_told(tmp_path: Path, ended: list[str]) -> None:
    with server_beside(tmp_path, 1, tmp_path) as server:
        watched(server, ended)
        log = tmp_path / beside.LOG
        while not log.read_text().strip():
            time.sleep(0.01)
        os.kill(int(log.read_text()), signal.SIGKILL)
        settled()
        assert ended == ["ended"]
