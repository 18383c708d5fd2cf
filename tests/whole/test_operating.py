"""What a team's server does by itself: a killed run is started again, a worker on another machine goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import COMMAND
from prefect.flows import load_flow_from_entrypoint
from real_server import PREFECT, Client, grow, real_server, wait_until
from tiny import tiny_overlay

from listflow.data.files import file_digest
from listflow.pipeline.run.lineage import continued
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train

pytest_plugins = ["flow_fixtures", "real_server"]
FLOW, POOL = "listflow-continue", "listflow"
DEPLOYMENTS = Path(__file__).parents[2] / "prefect.yaml"


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a client of one real server, on SQLite."""
    with real_server(tmp_path_factory.mktemp("home")) as environment:
        yield environment


def test_every_deployment_is_of_a_flow_that_takes_its_parameters() -> None:
    for deployment in yaml.safe_load(DEPLOYMENTS.read_text("utf-8"))["deployments"]:
        flow = load_flow_from_entrypoint(deployment["entrypoint"])
        assert flow.validate_parameters(deployment["parameters"]) == deployment["parameters"]
        grown, begun = deployment["triggers"]
        assert grown["expect"] == ["listflow.corpus.added"]
        assert begun["match_related"]["prefect.resource.name"] == deployment["work_pool"]["name"]
        assert deployment["tags"] == ["listflow"]


@pytest.mark.long
def test_a_killed_run_is_started_again_and_ends_as_if_nothing_had_happened(
    client: Client, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    folder, two, alone = (tmp_path / "runs" / name for name in ("killed", "killed-002", "alone"))
    grow(client, 60, 2)
    overlay = tiny_overlay(tiny_files | {"unlabelled": tmp_path / "corpora" / "tickets"}, folder)
    self_train(build_config("fast", overlay, {"student": {"steps": 400}, "checkpoint_seconds": 1}))
    grow(client, 20, 5)
    assert client.listflow("automations").returncode == 0
    with client.running(*COMMAND, "serve", str(folder), "--every", "24") as serving:
        wait_until(lambda: [one for one in client.ask("deployments") if one["name"] == "killed"], 60)
        client.prefect("deployment", "run", f"{FLOW}/killed")
        wait_until((two / "round-01" / "pseudo").exists, 120)
        for child in _children(serving.pid):
            os.kill(child, signal.SIGKILL)
        noticed = wait_until(lambda: client.runs(FLOW, "Crashed"), 60)
        again = wait_until(lambda: client.runs(FLOW, maker="AUTOMATION"), 60)
        print(f"killed: crashed after {noticed:.1f} s, and begun again {again:.1f} s later")
        wait_until(lambda: client.runs(FLOW, "Completed", "AUTOMATION"), 240)
    self_train(continued(folder, alone))
    for file in ("final/weights.safetensors", "predictions.parquet"):
        assert file_digest(two / file) == file_digest(alone / file)


@pytest.mark.long
def test_a_run_killed_with_its_server_process_has_no_twin(
    client: Client, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    folder, two = (tmp_path / "runs" / name for name in ("twin", "twin-002"))
    grow(client, 60, 2)
    overlay = tiny_overlay(tiny_files | {"unlabelled": tmp_path / "corpora" / "tickets"}, folder)
    self_train(build_config("fast", overlay, {"student": {"steps": 400}, "checkpoint_seconds": 1}))
    grow(client, 20, 5)
    serve = (*COMMAND, "serve", str(folder), "--corpus", "tickets", "--name", "twin")
    with client.running(*serve) as serving:
        wait_until((two / "round-01" / "pseudo").exists, 180)
        children = _children(serving.pid)
        for process in (serving.pid, *children):
            os.kill(process, signal.SIGKILL)
    (killed,) = of_twin(client)
    assert killed["state_name"] == "Running"
    assert killed["name"] == "twin-002: +20 rows of tickets (more)"
    with client.running(*serve):
        seconds = wait_until(lambda: of_twin(client)[0]["state_name"] == "Crashed", 60)
        print(f"killed with its server process: crashed {seconds:.1f} s after `listflow serve` was started again")
        wait_until((two / "report.json").exists, 240)
        wait_until(lambda: of_twin(client)[-1]["state_name"] == "Completed", 60)
    found, on = of_twin(client)
    assert "`listflow serve` was started again, and goes on with twin-002." in found["state"]["message"]
    assert on["name"] == "twin-002: +20 rows of tickets (more), resumed"
    assert not (two / ".flow-run.json").exists()


def of_twin(client: Client) -> list[dict[str, Any]]:
    """The flow runs that went on from the run ``twin``, the first one first."""
    return [run for run in client.runs(FLOW) if run["parameters"]["run"].endswith("/twin")]


@pytest.mark.long
def test_a_worker_goes_on_when_it_starts_and_when_a_corpus_grows(client: Client, first: Path, tmp_path: Path) -> None:
    (tmp_path / "prefect.yaml").write_text(
        DEPLOYMENTS.read_text("utf-8").replace("/srv/listflow/runs/tickets", str(first))
    )
    grow(client, 20, 4)  # no deployment is there to hear of it
    client.prefect("work-pool", "create", POOL, "--type", "process")
    client.prefect("deploy", "--all")
    with client.running(*PREFECT, "worker", "start", "--pool", POOL):
        wait_until((tmp_path / "runs" / "first-002" / "report.json").exists, 240)
        before = len(client.runs(FLOW))
        grow(client, 20, 5)
        seconds = wait_until(lambda: client.runs(FLOW)[before:], 60)
        print(f"a corpus event: a worker began a run {seconds:.1f} s after it")
        wait_until((tmp_path / "runs" / "first-003" / "report.json").exists, 240)


def _children(parent: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=True)
    return [int(word) for word in found.stdout.split()]
