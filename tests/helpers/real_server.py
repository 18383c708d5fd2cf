"""Real servers and databases for tests: started as a team would start them, on ports and in folders of their own.

A plugin, as ``flow_fixtures`` is.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from commands import COMMAND, Result
from tiny import sentences, tiny_overlay, write_jsonl

from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train

PATIENCE = 180.0
# As the tests are started: nothing says that its folder is on the path.
PREFECT = (sys.executable, "-m", "prefect")


@dataclass(frozen=True)
class Client:
    """Someone who talks to a server from the folder ``cwd``. ``env`` is the environment of its commands."""

    env: dict[str, str]
    cwd: Path

    def listflow(self, *arguments: str | Path) -> Result:
        """``listflow ...``, to its end."""
        return self._run([*COMMAND, *map(str, arguments)])

    def prefect(self, *arguments: str) -> Result:
        """``prefect ...``, to its end; it must succeed."""
        done = self._run([*PREFECT, "--no-prompt", *arguments])
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def ask(self, kind: str, **query: Any) -> list[dict[str, Any]]:
        """The server's objects of a kind, such as flow_runs."""
        user, _, secret = self.env["PREFECT_API_AUTH_STRING"].partition(":")
        answer = httpx.post(f"{self.env['PREFECT_API_URL']}/{kind}/filter", json=query, auth=(user, secret), timeout=30)
        answer.raise_for_status()
        return list(answer.json())

    def runs(
        self, flow: str, state: str | None = None, maker: str | None = None, begun: bool = True
    ) -> list[dict[str, Any]]:
        """Flow runs of ``flow``, the first one first: in ``state``, and made by ``maker``, where given."""
        runs = self.ask("flow_runs", flows={"name": {"any_": [flow]}}, sort="START_TIME_ASC")
        return [
            run
            for run in runs
            if (run["start_time"] or not begun)
            and state in {None, run["state_name"]}
            and (maker is None or (run["created_by"] or {}).get("type") == maker)
        ]

    @contextmanager
    def running(self, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command in the background, in a session of its own, ended with the block."""
        log = self.cwd / f"{secrets.token_hex(4)}.log"
        with (
            log.open("wb") as file,
            subprocess.Popen(
                command, env=self.env, cwd=self.cwd, stdout=file, stderr=file, start_new_session=True
            ) as process,
        ):
            try:
                yield process
            finally:
                _end(process)

    def _run(self, command: list[str]) -> Result:
        return subprocess.run(command, env=self.env, cwd=self.cwd, capture_output=True, text=True, check=False)


@contextmanager
def real_server(home: Path, database: str | None = None) -> Iterator[dict[str, str]]:
    """The environment of a client of a server that `listflow server` started, in ``home``, on ``database``."""
    port = free_port()
    quiet = {"PREFECT_HOME": str(home / "client"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | quiet
    named = {"PREFECT_API_DATABASE_CONNECTION_URL": database} if database else {}
    command = [*COMMAND, "server", "--home", str(home), "--port", str(port)]
    with (
        (home / "server.log").open("wb") as log,
        subprocess.Popen(command, env=environment | named, stdout=log, stderr=log) as process,
    ):
        try:
            wait_until(lambda: _healthy(port), PATIENCE)
            given = dict(re.findall(r"export (\w+)=(.*)", (home / "client.env").read_text("utf-8")))
            yield environment | given | {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
        finally:
            process.terminate()


@contextmanager
def real_postgres() -> Iterator[str]:
    """The address of an empty PostgreSQL database of its own; skipped where Debian's PostgreSQL is absent."""
    initdb, pg_ctl = _tool("initdb"), _tool("pg_ctl")
    # It refuses to run as root, and nobody cannot read root's folders.
    user: dict[str, Any] = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}
    home, port = Path(tempfile.mkdtemp(prefix="listflow-postgres-")), free_port()
    (home / "password").write_text(secret := secrets.token_urlsafe(12))
    if user:
        shutil.chown(home, "nobody")
        home.chmod(0o755)

    def call(*command: str) -> None:
        subprocess.run(command, cwd=home, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **user)

    data = str(home / "data")
    options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -c fsync=off"
    try:
        call(initdb, "-D", data, "-U", "listflow", "-A", "scram-sha-256", f"--pwfile={home / 'password'}")
        call(pg_ctl, "-D", data, "-o", options, "-l", str(home / "log"), "-w", "start")
        try:
            yield f"postgresql+asyncpg://listflow:{secret}@127.0.0.1:{port}/postgres"
        finally:
            call(pg_ctl, "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def team(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a client of a real server, on SQLite and on PostgreSQL."""
    home = tmp_path_factory.mktemp("home")
    if request.param == "sqlite":
        with real_server(home) as environment:
            yield environment
    else:
        with real_postgres() as database, real_server(home, database) as environment:
            yield environment


@pytest.fixture
def client(team: dict[str, str], tmp_path: Path) -> Client:
    """A client of the server, in an empty folder."""
    return Client(team, tmp_path)


@pytest.fixture
def first(client: Client, tiny_files: dict[str, Path], tmp_path: Path) -> Path:
    """A finished run on a corpus of 60 rows."""
    grow(client, 60, 2)
    overlay = tiny_overlay(tiny_files | {"unlabelled": tmp_path / "corpora" / "tickets"}, tmp_path / "runs" / "first")
    overlay["data"]["labelled"] = str(write_jsonl(tmp_path / "labelled.jsonl", sentences(8, 1)))  # type: ignore[index]
    self_train(build_config("fast", overlay, {"rounds": {"count": 1}}))
    return tmp_path / "runs" / "first"


def grow(client: Client, count: int, seed: int) -> None:
    write_jsonl(client.cwd / "more.jsonl", sentences(count, seed, labelled=False))
    done = client.listflow("ingest", "tickets", "more.jsonl")
    assert done.returncode == 0, done.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], Any], seconds: float) -> float:
    """The seconds until ``true()`` held; AssertionError after so many."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() < began + seconds, "waited too long"
        time.sleep(0.25)
    return time.monotonic() - began


def _healthy(port: int) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/api/health").status_code == 200
    return False


def _tool(name: str) -> str:
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(versions[-1]) if versions else None)
    if found is None:
        pytest.skip(f"{name} of PostgreSQL is not on this machine")
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
