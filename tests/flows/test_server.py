"""Against a real server, as a team would have one: what it shows of runs that the command line starts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from commands import COMMAND
from conftest import sentences, tiny_overlay, write_jsonl

from pipeline.config import build_config
from pipeline.selftrain import self_train

pytest_plugins = ["flow_fixtures"]
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a client of a server that is up, with a home of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    home = {
        "PREFECT_HOME": str(tmp_path_factory.mktemp("home")),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, env={**os.environ, **home}, stdout=silent, stderr=silent) as process:
        try:
            wait_for(f"{url}/health")
            yield {**os.environ, **home, "PREFECT_API_URL": url, "OMP_NUM_THREADS": "1"}
        finally:
            process.terminate()


def wait_for(url: str) -> None:
    for _ in range(240):
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise TimeoutError(url)


def ask(client: dict[str, str], kind: str, **query: Any) -> list[dict[str, Any]]:
    answer = httpx.post(f"{client['PREFECT_API_URL']}/{kind}/filter", json=query)
    answer.raise_for_status()
    return list(answer.json())


def test_a_server_shows_runs_stages_and_artifacts(client: dict[str, str], asked: list[str], tmp_path: Path) -> None:
    command = [*COMMAND, "run", *asked, f"--run-dir={tmp_path}/run"]
    seconds = []
    for _ in range(2):
        began = time.monotonic()
        done = subprocess.run(command, env=client, capture_output=True, text=True, check=False)
        seconds.append(time.monotonic() - began)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    print("seconds", seconds)
    first, second = ask(client, "flow_runs", sort="START_TIME_ASC")
    assert [first["state_name"], second["state_name"]] == ["Completed", "Completed"]
    assert first["parameters"]["config"]["rounds"]["count"] == 2
    for run, state in ((first, "Completed"), (second, "Cached")):
        tasks = ask(client, "task_runs", flow_runs={"id": {"any_": [run["id"]]}})
        assert len(tasks) == 8
        assert {task["state_name"] for task in tasks} == {state}
        assert "train student, round 2" in {task["name"] for task in tasks}
    keys = {artifact["key"] for artifact in ask(client, "artifacts")}
    assert keys >= {"list-rounds", "list-pseudo-labels", "list-meta-weights", "list-calibration", "list-report"}


def test_a_corpus_that_grows_starts_a_run_within_a_minute(
    client: dict[str, str], tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    env = client | {"PREFECT_LOGGING_LEVEL": "WARNING"}

    def listflow(*arguments: str) -> None:
        done = subprocess.run(
            [*COMMAND, *arguments], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def grow(count: int, seed: int) -> None:
        write_jsonl(tmp_path / "more.jsonl", sentences(count, seed, labelled=False))
        listflow("ingest", "tickets", "more.jsonl")

    grow(60, 2)
    overlay = tiny_overlay(tiny_files | {"unlabelled": tmp_path / "corpora" / "tickets"}, tmp_path / "runs" / "first")
    self_train(build_config("fast", overlay, {"rounds": {"count": 1}}))
    command = [*COMMAND, "serve", "runs/first", "--corpus", "tickets", "--every", "24"]
    with subprocess.Popen(command, env=env, cwd=tmp_path, start_new_session=True) as serving:
        try:
            wait_until(lambda: bool(ask(client, "deployments")), 60)
            time.sleep(5)  # the automation is created after the deployment
            grow(20, 5)
            began = time.monotonic()
            wait_until(lambda: bool(started(client, "listflow-continue")), 60)
            print("seconds from the event to the run", time.monotonic() - began)
            wait_until(lambda: (tmp_path / "runs" / "first-002" / "report.json").exists(), 240)
        finally:
            os.killpg(serving.pid, signal.SIGTERM)


def started(client: dict[str, str], flow: str) -> list[dict[str, Any]]:
    """Flow runs of ``flow`` that an automation made and that began."""
    runs = ask(client, "flow_runs", flows={"name": {"any_": [flow]}})
    return [
        run for run in runs if run["created_by"] and run["created_by"]["type"] == "AUTOMATION" and run["start_time"]
    ]


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.5)
