"""Against a real server, as a team would have one: what it shows of runs that the command line starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from commands import COMMAND

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
