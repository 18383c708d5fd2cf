"""How far a run came, as its folder tells it: view by view where it has two."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from commands import Cli
from committees import both_heard
from finished_views import believe, two_views
from tiny import tiny_overlay

from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.status import ModelStatus, RoundStatus, find_runs, rounds_of, status_of
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.checkpoint import verified
from listflow.pipeline.training.rounds import prompt_tune

pytest_plugins = ["flow_fixtures"]


@pytest.fixture(scope="module")
def done(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two views."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with both_heard():
        self_train(build_config("fast", two_views(tiny_files, folder), {"rounds": {"count": 1}}))
    return folder


@pytest.fixture
def run(done: Path, tmp_path: Path) -> Path:
    """A copy of it to be spoiled."""
    shutil.copytree(done, tmp_path / "runs" / "run")
    return tmp_path / "runs" / "run"


def parts(found: RoundStatus) -> dict[str, str]:
    return {model.view: model.part for model in found.models}


def accuracy(folder: Path) -> float:
    return float((verified(folder) or {})["test"]["accuracy"])


def test_both_views_are_told(run: Path) -> None:
    believe(run, prompt=0.25, text=0.75)
    found = status_of(run)
    assert (found.state, found.reached, found.views) == ("done", 1, {"prompt": 0.25, "text": 0.75})
    first, second = rounds_of(run, 1)
    assert second.models == (
        ModelStatus("prompt", "complete", accuracy(run / "round-01" / "student")),
        ModelStatus("text", "complete", accuracy(run / "round-01" / "student-text")),
    )
    assert parts(first) == parts(second) == {"prompt": "complete", "text": "complete"}


def test_a_view_without_a_say_trains_no_student(run: Path) -> None:
    before = status_of(run)
    believe(run, prompt=0.0, text=1.0)
    assert (before.stage.partition(" ")[0], status_of(run).stage) == ("list", "none")
    assert before.head.startswith("verbalizer + prototypes")
    assert status_of(run).head.startswith("prototypes")
    shutil.rmtree(run / "round-01" / "student")
    first, second = rounds_of(run, 1)
    assert (parts(first), parts(second)) == ({"prompt": "complete", "text": "complete"}, {"text": "complete"})


@pytest.mark.parametrize("spoiled", ["committee", "student-text", "vectors"])
def test_what_is_missing_or_damaged_is_said_and_breaks_nothing(run: Path, spoiled: str) -> None:
    found = {"committee": "round-00/committee", "student-text": "round-01/student-text", "vectors": "inputs/vectors"}
    for path in (run / found[spoiled]).rglob("*.*"):
        path.write_text("{") if path.suffix == ".json" else path.unlink()
    assert status_of(run).views.keys() == (set() if spoiled == "committee" else {"prompt", "text"})
    assert parts(rounds_of(run, 1)[1]) == {
        "prompt": "complete", "text": "damaged" if spoiled == "student-text" else "complete"
    }  # fmt: skip
    refused: list[object] = []
    assert [each.folder for each in find_runs(run.parent, refused.append)] == [run]
    assert not refused


def test_views_are_trained_one_after_the_other(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    with open_run(build_config("fast", two_views(tiny_files, tmp_path / "run"))) as run:
        assert parts(rounds_of(run.folder, 1)[0]) == {"prompt": "left", "text": "left"}
        prompt_tune(run)
    (tmp_path / "run" / "round-00" / "some.step").touch()
    assert parts(rounds_of(run.folder, 1)[0]) == {"prompt": "complete", "text": "begun"}
    shutil.rmtree(run.folder / "round-00" / "teacher")
    assert parts(rounds_of(run.folder, 1)[0]) == {"prompt": "begun", "text": "left"}
    assert status_of(run.folder).views == {}


@pytest.mark.parametrize("face", ["prompt", "text"])
def test_a_run_of_one_view_is_told_as_such(tiny_files: dict[str, Path], tmp_path: Path, face: str) -> None:
    alone = {"face": "text", "stage": {"kind": "none"}, "head": {"kind": "prototypes"}} if face == "text" else {}
    config = build_config("fast", tiny_overlay(tiny_files, tmp_path / "run") | alone, {"rounds": {"count": 1}})
    self_train(config)
    assert status_of(tmp_path / "run").views == {}
    assert [parts(found) for found in rounds_of(tmp_path / "run", 1)] == [{face: "complete"}] * 2


def test_the_command_shows_both_views(cli: Cli, run: Path) -> None:
    believe(run, prompt=0.25, text=0.75)
    shown = cli("status", run).stdout
    assert "how far each is believed: prompt 25.0 %, text 75.0 %" in shown
    assert shown.count("prompt: complete") == shown.count("text: complete") == 2
