"""A work pool labels, against a real server with a real worker; a child that is killed is made good."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from commands import COMMAND
from conftest import sentences, tiny_overlay, write_jsonl

from data.ingest import ingest
from data.task import Columns
from pipeline.config import build_config
from pipeline.label_worker import label_range
from pipeline.labelling import Labelling
from pipeline.selftrain import self_train

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
            deploy = "from flows.label_pool import deploy; deploy('small', 'boxes')"
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


def child_at_work() -> psutil.Process | None:
    """The process of a child flow, once it has loaded what it needs."""
    for process in psutil.process_iter(["cmdline"]):
        if "prefect.flow_engine" in " ".join(process.info["cmdline"] or ()):
            return process
    return None


def test_a_pool_labels_and_a_killed_child_is_made_good(
    client: dict[str, str], tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    run, corpus, out = tmp_path / "run", tmp_path / "tickets", tmp_path / "out"
    self_train(build_config("fast", tiny_overlay(tiny_files, run), {"rounds": {"count": 1}}))
    ingest(corpus, [str(write_jsonl(tmp_path / "rows.jsonl", sentences(600, 2, labelled=False)))], Columns(),
           rows_a_shard=100)  # fmt: skip
    work = Labelling.open(run, corpus, tmp_path / "plain")
    with work.begun():
        label_range(run, corpus, work.folder, 1, 6)
    options = ["--runner=pool", "--pool-deployment=small", "--workers=1", f"--output={out}"]
    with subprocess.Popen([*COMMAND, "label", run, corpus, *options], env=client, stderr=subprocess.PIPE) as driver:
        wait_until(lambda: child_at_work() is not None, 120)
        child = child_at_work()
        assert child is not None
        child.send_signal(signal.SIGKILL)
        _, errors = driver.communicate(timeout=400)
    assert driver.returncode == 0, errors
    for path in work.folder.glob("*.parquet"):
        assert (out / path.name).read_bytes() == path.read_bytes()
    runs = httpx.post(f"{client['PREFECT_API_URL']}/flow_runs/filter", json={}).json()
    children = [found for found in runs if found["name"].startswith("label shards")]
    assert sorted(found["state_name"] for found in children).count("Crashed") == 1
    assert len(children) == 5
