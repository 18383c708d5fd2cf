"""The form that starts a run from the Prefect pages: its fields, what they become, and one sentence for bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import Result
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from tiny import tiny_overlay

from listflow.data.errors import InputError
from listflow.flows.cli.options import Asked
from listflow.flows.run.beginning import NewRun, start
from listflow.flows.run.deployment import Wanted, form_of
from listflow.pipeline.run.presets import build_config

pytest_plugins = ["flow_fixtures"]


@pytest.fixture
def filled(tiny_files: dict[str, Path], tmp_path: Path) -> dict[str, Any]:
    """What a person fills in for a run of seconds."""
    given = tiny_overlay(tiny_files, tmp_path / "run")
    settings = {name: given[name] for name in ("second", "backbone", "teacher", "student", "stage", "reweight")}
    files: Any = given["data"]
    return {**files, "task": given["task"], "folder": given["run_dir"], "rounds": 1, "settings": settings}


def test_the_form_has_fields_with_help_and_limits() -> None:
    schema = start.parameters.model_dump_for_openapi()
    fields = schema["definitions"]["NewRun"]["properties"]
    assert list(fields) == [
        "labelled", "unlabelled", "test", "task", "folder", "preset", "rounds", "seed", "settings",
    ]  # fmt: skip
    assert all(field["description"] for field in fields.values())
    # A page takes what stands in angle brackets for HTML, and shows nothing of it.
    assert not any("<" in field["description"] for field in fields.values())
    assert schema["definitions"]["NewRun"]["required"] == ["labelled"]
    assert (fields["rounds"]["minimum"], fields["rounds"]["maximum"]) == (0, 50)
    assert fields["preset"]["enum"] == ["fast", "released", "published"]


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({"unlabelled": ["pool.csv", ""]}, Asked(unlabelled=["pool.csv"])),
        ({"preset": "published", "seed": 7}, Asked(preset="published", seed=7)),
        ({"rounds": 3, "settings": {"head": "linear"}}, Asked(rounds=3, head="linear")),
        ({"test": "t.csv", "folder": "runs/x", "task": "sst2"}, Asked(test="t.csv", run_dir="runs/x", task="sst2")),
        ({"settings": {"student": {"steps": 30}, "rounds": {"count": 2}}}, Asked(set=["student.steps=30"], rounds=2)),
    ],
)
def test_it_asks_for_what_the_command_line_asks_for(given: dict[str, Any], asked: Asked) -> None:
    labelled = Asked(**{**vars(asked), "labelled": "few.csv"})
    assert NewRun(labelled="few.csv", **given).to_config() == labelled.to_config()


def test_a_setting_that_is_none_is_refused_as_on_the_command_line() -> None:
    with pytest.raises(InputError, match=r"config key 'student\.step': unknown key 'step'"):
        NewRun(labelled="few.csv", settings={"student": {"step": 3}}).to_config()


def test_a_run_is_started_and_shows_its_rounds(server: None, filled: dict[str, Any], tmp_path: Path) -> None:
    state = start(NewRun(**filled), return_state=True)
    assert state.result()["run"] == str(tmp_path / "run")  # type: ignore[index]
    own = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(state.state_details.flow_run_id)  # type: ignore[arg-type]
        tasks = {run.name for run in client.read_task_runs(flow_run_filter=own)}
    assert (found.name, sorted(found.tags)) == ("task, run", ["list", "listflow", "verbalizer"])
    assert {"train prompt student, round 1", "publish"} <= tasks


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"labelled": "absent.csv"}, "absent.csv: no such file; check the path, or name a hub data set"),
        ({"unlabelled": []}, "no unlabelled file is given; self-training needs one"),
        ({"settings": {"sedd": 3}}, "config key 'sedd': unknown key 'sedd'; did you mean 'seed'?"),
        ({"settings": {"review": {"rows": 5}}}, "round 1 of 1 cannot ask for a review"),
        ({"task": "absent.yaml"}, "absent.yaml"),
    ],
)
def test_bad_input_is_the_one_sentence_of_a_failed_flow_run(
    server: None, filled: dict[str, Any], tmp_path: Path, given: dict[str, Any], sentence: str
) -> None:
    state = start(NewRun(**filled | given), return_state=True)
    assert state.name == "Failed"
    assert sentence in str(state.message)
    assert "\n" not in str(state.message)
    assert not (tmp_path / "run").exists()


def test_the_form_is_filled_in_with_the_texts_of_the_served_run(
    finished: tuple[Path, Result], tiny_files: dict[str, Path]
) -> None:
    form = form_of(Wanted(finished[0], "0 6 * * mon", None, (), "weekly"))
    assert form["name"] == "weekly-new"
    given = start.validate_parameters(form["parameters"])["run"]
    files = {name: str(path) for name, path in tiny_files.items()}
    assert (given.labelled, given.unlabelled, given.test) == (files["labelled"], [files["unlabelled"]], files["test"])
    assert (given.task, given.settings) == (files["task"], {"backbone": {"name": files["backbone"]}})


def test_a_run_of_the_demo_leaves_its_files_to_be_filled_in() -> None:
    assert NewRun.like(build_config("fast")) == {}
