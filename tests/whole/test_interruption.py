"""Cancelling through the API, and folders that a newer version wrote."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from shutil import copytree

import pytest
from commands import Cli, Result, cancel, refused
from forks import started
from tiny import tiny_overlay

from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.storage.checkpoint import load_checked, read_json, write_json

pytest_plugins = ["flow_fixtures"]


def flow_run_of(folder: Path) -> str:
    """The flow run that works in ``folder``."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs()
    (found,) = [run for run in runs if (run.parameters.get("config") or {}).get("run_dir") == str(folder)]
    return str(found.id)


def state_of(flow_run: str) -> str:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return str(client.read_flow_run(flow_run).state_name)


def test_a_cancelled_run_stops_at_a_whole_step(environment: dict[str, str], asked: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    endless = ("run", *asked, f"--run-dir={folder}", "--set=student.steps=100000")
    with started(*endless, env=environment) as running:
        assert any("warm-up" in line for line in running.stdout)
        flow_run, began = flow_run_of(folder), time.monotonic()
        cancel(flow_run)
        result = running.end()
    assert time.monotonic() - began < 30
    assert result.returncode == 130, result.stderr
    assert f"listflow resume {folder}" in result.stderr
    assert "Traceback" not in result.stderr
    assert state_of(flow_run) == "Cancelled"
    (step,) = (folder / "round-01").glob("*.step")
    assert load_checked(step)["progress"][0] > 0


def test_a_cancellation_at_the_very_end_still_counts(
    server: None, tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from listflow.flows.run import self_training as list_flow
    from listflow.flows.run.cancellation import Stopped

    config: RunConfig = build_config("fast", tiny_overlay(tiny_files, tmp_path / "run"))
    monkeypatch.setattr(list_flow, "show_report", lambda report: cancel(flow_run_of(tmp_path / "run")))
    with pytest.raises(Stopped):
        list_flow.self_train(config)
    assert state_of(flow_run_of(tmp_path / "run")) == "Cancelled"
    assert (tmp_path / "run" / "report.json").exists()


def test_a_newer_run_is_refused_by_every_command_and_left_alone(
    cli: Cli, asked: list[str], finished: tuple[Path, Result], tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    run = copytree(finished[0], tmp_path / "run")
    for name in ("config.json", "report.json", "final/manifest.json", "final/model.json"):
        write_json(run / name, read_json(run / name) | {"format": 2})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for command in (
        ("run", *asked, f"--run-dir={run}"),
        ("resume", run),
        ("status", run),
        ("report", run),
        ("predict", run, f"--input={tiny_files['test']}", f"--output={tmp_path / 'out.csv'}"),
        ("run", f"--continue={run}", f"--run-dir={tmp_path / 'two'}"),
    ):
        refused(cli(*command), "newer version of listflow")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_ingest_that_is_ended_says_that_nothing_was_added(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*given: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("listflow.data.corpora.ingest.ingest", ended)
    result = cli("ingest", "tickets", "any.csv", f"--home={tmp_path}")
    assert result.returncode == 143
    assert result.stderr.startswith("listflow: interrupted; nothing was added.")


def test_the_report_of_an_unfinished_run_names_resume(cli: Cli, finished: tuple[Path, Result], tmp_path: Path) -> None:
    run = copytree(finished[0], tmp_path / "run")
    (run / "report.json").unlink()
    refused(cli("report", run), f"{run} is not finished", f"`listflow resume {run}`")


def test_one_run_that_cannot_be_read_hides_no_other(
    cli: Cli, finished: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, newer, damaged, strange = (copytree(finished[0], tmp_path / "runs" / name) for name in ("a", "b", "c", "d"))
    write_json(newer / "config.json", read_json(newer / "config.json") | {"format": 2})
    (damaged / "config.json").write_text("{")
    write_json(strange / "config.json", {"format": 1})
    monkeypatch.setattr("listflow.flows.cli.results.RUNS", tmp_path / "runs")
    shown = cli("status", "--json")
    assert shown.returncode == 0, shown.stderr
    assert [run["folder"] for run in json.loads(shown.stdout)] == [str(good)]
    for folder, words in ((newer, "newer version"), (damaged, "config.json is damaged"), (strange, "d is damaged")):
        (line,) = [line for line in shown.stderr.splitlines() if line.startswith("listflow: ") and words in line]
        assert str(folder) in line
        refused(cli("status", folder), words)
    freed = cli("gc", tmp_path / "runs", "--days=0", "--json")
    assert freed.returncode == 0, freed.stderr
    found = {Path(path).relative_to(tmp_path / "runs").parts[0] for path in json.loads(freed.stdout)["paths"]}
    assert "a" in found
    assert not found & {"b", "c"}
    assert "newer version" in freed.stderr


def test_a_refused_run_leaves_no_folder_that_was_not_there(cli: Cli, asked: list[str], tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"body": "w1"}\n')
    refused(cli("run", *asked, f"--unlabelled={path}", f"--run-dir={tmp_path / 'runs' / 'news'}"), "no column 'text'")
    assert [found.name for found in tmp_path.iterdir()] == ["bad.jsonl"]
    (tmp_path / "runs" / "news").mkdir(parents=True)
    refused(cli("run", *asked, f"--unlabelled={path}", f"--run-dir={tmp_path / 'runs' / 'news'}"), "no column 'text'")
    assert (tmp_path / "runs" / "news").is_dir()
