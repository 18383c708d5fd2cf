"""A work pool labels, against a real server with a real worker; a child that is killed is made good."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from commands import COMMAND
from tiny import sentences, tiny_overlay, write_jsonl

from listflow.data.corpora.ingest import ingest
from listflow.data.task import Columns
from listflow.pipeline.results.label_worker import label_range
from listflow.pipeline.results.labelling import Labelling
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train

pytestmark = pytest.mark.long
PREFECT = (sys.executable, "-m", "prefect")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a client of a server that is up, with a work pool and one worker of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {
        **os.environ,
        "PREFECT_HOME": str(tmp_path_factory.mktemp("home")),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
    }
    with start(env, "server", "start", "--host", "127.0.0.1", "--port", str(port)) as server:
        try:
            wait_until(lambda: is_up(f"{env['PREFECT_API_URL']}/health"), 180)
            subprocess.run([*PREFECT, "work-pool", "create", "boxes", "--type", "process"], env=env, check=True)
            deploy = "from listflow.flows.labelling.work_pool import deploy; deploy('small', 'boxes')"
            subprocess.run([sys.executable, "-c", deploy], env=env, check=True)
            with start(env, "worker", "start", "--pool", "boxes", "--limit", "1") as worker:
                try:
                    yield env
                finally:
                    worker.terminate()
        finally:
            server.terminate()


def start(env: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    silent = subprocess.DEVNULL
    return subprocess.Popen([*PREFECT, *arguments], env=env, stdout=silent, stderr=silent)


def is_up(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def children(client: dict[str, str]) -> list[dict[str, Any]]:
    runs = httpx.post(f"{client['PREFECT_API_URL']}/flow_runs/filter", json={"sort": "START_TIME_ASC"}).json()
    return [found for found in runs if "shards " in found["name"]]  # its flow names it anew


def kill_a_running_child(client: dict[str, str]) -> bool:
    """Kills the processes of the child flow that is at work; False while there is none."""
    for found in children(client):
        if found["state_name"] == "Running" and found["infrastructure_pid"]:
            process = psutil.Process(int(found["infrastructure_pid"].rpartition(":")[2]))
            for one in (*process.children(recursive=True), process):
                one.kill()
            return True
    return False


def test_a_pool_labels_and_a_killed_child_is_made_good(
    client: dict[str, str], tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    run, corpus, out = tmp_path / "run", tmp_path / "tickets", tmp_path / "out"
    self_train(build_config("fast", tiny_overlay(tiny_files, run), {"rounds": {"count": 1}}))
    rows = write_jsonl(tmp_path / "rows.jsonl", sentences(200, 2, labelled=False))
    ingest(corpus, [str(rows)], Columns(), rows_a_shard=100)
    work = Labelling.open(run, corpus, tmp_path / "plain")
    with work.begun():
        label_range(run, corpus, work.folder, 1, 2)
    options = ["--runner=pool", "--pool-deployment=small", "--workers=1", f"--output={out}"]
    with subprocess.Popen([*COMMAND, "label", run, corpus, *options], env=client, stderr=subprocess.PIPE) as driver:
        wait_until(lambda: kill_a_running_child(client), 240)
        _, errors = driver.communicate(timeout=400)
    assert driver.returncode == 0, errors
    for path in work.folder.glob("*.parquet"):
        assert (out / path.name).read_bytes() == path.read_bytes()
    states = [found["state_name"] for found in children(client)]
    assert sorted(states) == ["Completed", "Completed", "Crashed"]
