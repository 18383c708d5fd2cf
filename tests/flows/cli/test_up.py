"""``up``: what it refuses before anything is started, and which run it finds by itself."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from commands import COMMAND, Cli, Result, refused
from filelock import FileLock
from forks import started
from tiny import sentences, write_jsonl

from listflow.flows.server.hosting import HOST
from listflow.pipeline.storage.checkpoint import LOCK

pytest_plugins = ["flow_fixtures"]


@pytest.fixture
def run_of(finished: tuple[Path, Result], tmp_path: Path) -> Path:
    """A finished run of this test's own."""
    return Path(shutil.copytree(finished[0], tmp_path / "runs" / "tiny"))


def up(cwd: Path, *arguments: str | Path, **own: str) -> Result:
    """The command in a process of its own, with no server configured."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with started("up", *arguments, cwd=cwd, env=kept | {"PREFECT_HOME": str(cwd / "prefect")} | own) as running:
        return running.end()


def test_no_run_and_nothing_to_make_it_of(cli: Cli, tiny_files: dict[str, Path]) -> None:
    labelled = f"--labelled={tiny_files['labelled']}"
    refused(cli("up", "nope"), "nope is no run", "--labelled FILE and --corpus NAME")
    refused(cli("up", "nope", labelled), "nope is no run", "--corpus NAME")
    refused(
        cli("up", "nope", labelled, "--corpus=tickets"), "corpora/tickets holds no corpus", "listflow ingest tickets"
    )
    refused(cli("up", "nope", labelled, "--corpus=../x"), "'../x' is no name for a corpus")
    refused(cli("up", "--cron=0 6 * * mon"), "not exactly one run below runs/")


def test_a_schedule_that_cannot_be_read_is_refused_before_an_hour_of_training(
    cli: Cli, tiny_files: dict[str, Path], run_of: Path
) -> None:
    assert cli("ingest", "weekly", tiny_files["unlabelled"]).returncode == 0
    made = ("up", "runs/new", f"--labelled={tiny_files['labelled']}", "--corpus=weekly")
    for given in (made, ("up", run_of)):
        refused(cli(*given, "--cron=x y"), "--cron 'x y' is no schedule", "'0 6 * * mon'")
        refused(cli(*given, "--cron=0 6 * * mon", "--every=3"), "two schedules")
        refused(cli(*given, "--every=-1"), "--every -1.0 is no time between runs")
    refused(cli("up", run_of), "nothing would ever start a run")
    refused(cli("up", run_of, "--corpus=nope"), "corpora/nope holds no corpus")
    refused(cli(*made, "--set=rounds.cuont=1"), "cuont")


def test_a_run_that_another_process_works_on(cli: Cli, run_of: Path) -> None:
    with FileLock(run_of / LOCK):
        refused(cli("up", run_of, "--every=24"), "tiny is not finished", "another process works on it")


def test_another_server_that_is_configured(cli: Cli, run_of: Path) -> None:
    """The tests' own."""
    refused(cli("up", run_of, "--every=24"), "PREFECT_API_URL names http://127.0.0.1:", "`listflow serve`")


def test_a_port_that_something_else_has(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        result = up(tmp_path, f"--port={port}")
    refused(result, f"port {port} of this machine is taken", "give another --port")
    assert not (tmp_path / ".server").exists()


def test_a_server_that_cannot_start(tmp_path: Path) -> None:
    """Its database is no database that it knows; what it said is kept."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    database = f"postgresql+asyncpg://nobody:x@{HOST}:9/nothing"
    result = up(tmp_path, f"--port={port}", PREFECT_API_DATABASE_CONNECTION_URL=database)
    refused(result, "the Prefect server did not start; .server/server.log says why")
    assert "Connect" in (tmp_path / ".server" / "server.log").read_text()


def test_the_beginnings_of_lineages(run_of: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from listflow.flows.cli.up import heads

    monkeypatch.chdir(tmp_path)
    runs = Path("runs")
    assert heads(Path("nowhere")) == []
    assert heads(runs) == [runs / "tiny"]
    second = Path(shutil.copytree(run_of, runs / "tiny-002"))
    assert heads(runs) == [runs / "tiny", runs / "tiny-002"]
    stored = json.loads((second / "config.json").read_text())
    stored["config"]["continues"] = str(run_of.resolve())
    (second / "config.json").write_text(json.dumps(stored))
    assert heads(runs) == [runs / "tiny"]


def test_what_ingest_and_run_say_of_a_server_that_is_gone(tmp_path: Path) -> None:
    """Nothing is wrong with the rows, and a run has the temporary one."""
    home = tmp_path / ".server"
    home.mkdir()
    (home / "client.env").write_text(
        "export PREFECT_API_URL=http://127.0.0.1:9/api\nexport PREFECT_API_AUTH_STRING=a:b\n"
    )
    (home / "client.env").chmod(0o600)
    write_jsonl(tmp_path / "more.jsonl", sentences(5, 2, labelled=False))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with started("ingest", "tickets", "more.jsonl", cwd=tmp_path, env=kept) as running:
        done = running.end()
    assert (done.returncode, done.stderr) == (0, "")
    script = (
        "from listflow.flows.cli.console import prepare; prepare()\n"
        "from listflow.flows.server.client import ensure_server\n"
        "from listflow.flows.server.temporary import TemporaryServer\n"
        "TemporaryServer.begin, TemporaryServer.start = lambda own: print('begun'), lambda own: print('awaited')\n"
        "ensure_server()"
    )
    done = subprocess.run(
        [COMMAND[0], "-c", script], cwd=tmp_path, env=kept | {"PREFECT_HOME": str(tmp_path / "prefect")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "begun\nawaited\n"), done.stderr
    assert done.stderr.startswith("listflow: the server of .server is not running")
    assert done.stderr.count("\n") == 1
