"""One command, as a stranger would give it: from files to a run that a corpus event started, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from commands import COMMAND, refused
from real_server import Client, free_port, grow, real_postgres, wait_until
from tiny import sentences, write_jsonl

from listflow.flows.server.here import address_of, is_hosting

pytest_plugins = ["real_server"]
pytestmark = pytest.mark.long
SETTINGS = (
    "backbone.precision=fp32", "backbone.device=cpu", "teacher.epochs=2", "teacher.batch=4", "student.steps=8",
    "student.batch=6", "student.tail_epochs=2", "student.tail_batch=4", "stage.width=4", "reweight.batch=4",
    "rounds.sample=20", "second=null", "rounds.count=1",
)  # fmt: skip


@pytest.fixture(params=["sqlite", "postgresql"])
def stranger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    """Someone in an empty folder with nothing configured but, perhaps, a database."""
    own = {
        "PREFECT_HOME": str(tmp_path / "client"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONFAULTHANDLER": "1",
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | own
    if request.param == "sqlite":
        yield Client(clean, tmp_path)
    else:
        with real_postgres() as database:
            yield Client(clean | {"PREFECT_API_DATABASE_CONNECTION_URL": database}, tmp_path)


@pytest.fixture
def first(stranger: Client, tiny_files: dict[str, Path]) -> list[str]:
    """``up`` with a run that is to be made, of a corpus that is there."""
    grow(stranger, 60, 2)
    labelled = write_jsonl(stranger.cwd / "labelled.jsonl", sentences(8, 1))
    settings = [f"--set={setting}" for setting in (*SETTINGS, f"backbone.name={tiny_files['backbone']}")]
    given = [f"--task={tiny_files['task']}", f"--labelled={labelled}", "--corpus=tickets", *settings]
    return [*COMMAND, "up", "runs/tickets", *given, f"--port={free_port()}"]


def test_from_nothing_to_a_run_that_a_corpus_started(stranger: Client, first: list[str]) -> None:
    report = stranger.cwd / "runs" / "tickets-002" / "report.json"
    began = time.monotonic()
    with stranger.running(*first) as up:
        wait_until(lambda: said(stranger, "serves listflow-continue/tickets"), 240)
        print(f"`listflow up` served a run that it had made after {time.monotonic() - began:.0f} s")
        time.sleep(5)
        grow(stranger, 20, 5)  # in another shell, with nothing configured
        print(f"a corpus event: its run was done {wait_until(report.exists, 240):.0f} s after the ingest")
        client = connected(stranger)
        wait_until(lambda: client.runs("listflow-continue", "Completed", "AUTOMATION"), 60)
        # The run that `up` made; what is served has its rounds itself.
        assert [run["state_name"] for run in client.runs("listflow")] == ["Completed"]
        assert len(client.ask("automations")) >= 3
        # Again, and from another shell: it is served already; another name joins the server.
        refused(stranger.listflow("up", "runs/tickets", "--every=24"), "tickets is served already")
        with stranger.running(*COMMAND, "up", "runs/tickets", "--every=24", "--name=daily") as second:
            wait_until(lambda: said(stranger, "serves listflow-continue/daily"), 120)
        assert second.returncode == 0
        assert is_hosting(stranger.cwd / ".server")
        shown = httpx.get(f"{client.env['PREFECT_API_URL'][:-4]}/reports/tickets-002", auth=auth(client))
        assert shown.text == (report.parent / "report.html").read_text()
        (artifact,) = client.ask("artifacts/latest", artifacts={"key": {"any_": ["list-report"]}})
        assert "[report](/reports/tickets-002)" in artifact["data"]
    assert up.returncode == 0
    nothing_is_left(stranger)
    assert not any(word in log.read_text() for log in stranger.cwd.glob("*.log") for word in ("Warning", "Traceback"))


@pytest.mark.parametrize("stranger", ["sqlite"], indirect=True)
def test_its_end_is_that_of_its_server_and_the_other_way_round(stranger: Client, first: list[str]) -> None:
    def group(up: subprocess.Popen[bytes]) -> None:
        os.killpg(up.pid, signal.SIGINT)  # as a terminal does it

    def terminal(up: subprocess.Popen[bytes]) -> None:
        os.killpg(up.pid, signal.SIGHUP)

    def server(up: subprocess.Popen[bytes]) -> None:
        os.kill(children(up.pid)[0], signal.SIGKILL)

    def itself(up: subprocess.Popen[bytes]) -> None:
        up.kill()

    ends: dict[Callable[[subprocess.Popen[bytes]], None], int] = {group: 0, terminal: 0, server: 1, itself: -9}
    for stop, code in ends.items():
        for log in stranger.cwd.glob("*.log"):
            log.unlink()
        with stranger.running(*first) as up:
            wait_until(lambda: said(stranger, "serves listflow-continue/tickets"), 240)
            stop(up)
            seconds = wait_until(lambda up=up: up.poll() is not None, 60)  # type: ignore[misc]
        print(f"{stop.__name__}: ended after {seconds:.1f} s")
        assert up.returncode == code, stop.__name__
        wait_until(lambda: not is_hosting(stranger.cwd / ".server"), 30)
        nothing_is_left(stranger)
        if stop is server:
            assert said(stranger, "listflow: the Prefect server has ended (.server/server.log says why)")


def said(client: Client, words: str) -> bool:
    return any(words in log.read_text(errors="replace") for log in client.cwd.glob("*.log"))


def connected(client: Client) -> Client:
    """The same, with what client.env holds."""
    address = address_of(client.cwd / ".server")
    assert address
    own = {"PREFECT_API_URL": f"{address.url}/api", "PREFECT_API_AUTH_STRING": address.password}
    return Client(client.env | own, client.cwd)


def auth(client: Client) -> tuple[str, str]:
    user, _, secret = client.env["PREFECT_API_AUTH_STRING"].partition(":")
    return user, secret


def children(parent: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=True)
    return [int(word) for word in found.stdout.split()]


def nothing_is_left(client: Client) -> None:
    """No process that works in the folder, a moment later: Python has helpers that look for their starter."""
    wait_until(lambda: not left(client.cwd), 15)


def left(folder: Path) -> list[bytes]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder and (process / "stat").read_text().split()[2] != "Z":
                found.append((process / "cmdline").read_bytes())
        except OSError:
            continue
    return found
