"""Against a real server, as a team would have one, on both of its databases: what it shows, starts and continues."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from commands import COMMAND
from real_server import Client, grow, wait_until

pytest_plugins = ["flow_fixtures", "real_server"]
pytestmark = pytest.mark.long
FLOW = "listflow-continue"


def test_a_server_shows_runs_stages_and_artifacts(client: Client, asked: list[str], tmp_path: Path) -> None:
    seconds = []
    for _ in range(2):
        began = time.monotonic()
        done = client.listflow("run", *asked, f"--run-dir={tmp_path}/run")
        seconds.append(round(time.monotonic() - began, 1))
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    print("seconds of a run, and of the same from the cache:", *seconds)
    first, second = client.runs("listflow")
    assert [first["state_name"], second["state_name"]] == ["Completed", "Completed"]
    assert first["parameters"]["config"]["rounds"]["count"] == 2
    for run, state in ((first, "Completed"), (second, "Cached")):
        tasks = client.ask("task_runs", flow_runs={"id": {"any_": [run["id"]]}})
        assert len(tasks) == 8
        assert {task["state_name"] for task in tasks} == {state}
        assert "train prompt student, round 2" in {task["name"] for task in tasks}
    keys = {artifact["key"] for artifact in client.ask("artifacts")}
    assert keys >= {"list-rounds", "list-pseudo-labels", "list-meta-weights", "list-calibration", "list-report"}


def test_a_client_without_the_password_is_refused(client: Client, asked: list[str], tmp_path: Path) -> None:
    for wrong in ({}, {"PREFECT_API_AUTH_STRING": "listflow:guess"}, {"PREFECT_API_KEY": "key"}):
        without = {name: value for name, value in client.env.items() if name != "PREFECT_API_AUTH_STRING"}
        done = Client(without | wrong, tmp_path).listflow("run", *asked, f"--run-dir={tmp_path}/run")
        assert done.returncode == 2
        assert "refuses this client's password" in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_schedule_fires_and_nothing_new_is_no_error(client: Client, first: Path) -> None:
    with client.running(*COMMAND, "serve", str(first), "--every", "0.01", "--name", "often") as serving:
        seconds = wait_until(lambda: client.runs(FLOW, "Completed", "SCHEDULE"), 300)
    print(f"a schedule of 36 s: a run was done {seconds:.1f} s after `listflow serve`")
    assert "no unlabelled row is new since" in client.runs(FLOW, "Completed", "SCHEDULE")[0]["state"]["message"]
    assert not client.runs("listflow", "Failed")
    # The block ended it with SIGTERM.
    assert serving.returncode == 0
    assert not any("Warning" in log.read_text() for log in client.cwd.glob("*.log"))
    (often,) = (one for one in client.ask("deployments") if one["name"] == "often")
    assert often["paused"]


def test_a_corpus_starts_a_run_and_a_failed_one_is_continued(client: Client, first: Path, tmp_path: Path) -> None:
    report, labelled = tmp_path / "runs" / "first-002" / "report.json", tmp_path / "labelled.jsonl"
    with client.running(*COMMAND, "serve", str(first), "--corpus", "tickets", "--name", "grown"):
        wait_until(lambda: [one for one in client.ask("deployments") if one["name"] == "grown"], 60)
        time.sleep(5)  # the automation is created after the deployment
        away = labelled.rename(tmp_path / "away.jsonl")
        grow(client, 20, 5)
        made = wait_until(lambda: client.runs(FLOW, maker="AUTOMATION", begun=False), 60)
        began = made + wait_until(lambda: client.runs(FLOW, maker="AUTOMATION"), 120)
        print(f"a corpus event: the server made a run {made:.1f} s after it, which began after {began:.1f} s")
        assert began < 60
        wait_until(lambda: client.runs(FLOW, "Failed"), 240)
        away.rename(labelled)
        (failed,) = client.runs(FLOW, "Failed")
        client.prefect("flow-run", "retry", failed["id"])
        seconds = wait_until(report.exists, 240)
        print(f"a retried run was done {seconds:.1f} s after `prefect flow-run retry`")
        wait_until(lambda: failed["id"] in {run["id"] for run in client.runs(FLOW, "Completed")}, 60)
