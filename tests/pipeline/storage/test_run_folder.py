"""The layout that is said is the one that a run has, and that earlier versions wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tiny_overlay

from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.run_folder import RoundFolder, RunFolder, default_folder, runs_below

MODEL = {"weights.safetensors", "evidence.safetensors", "manifest.json"}


def test_a_finished_run_holds_what_the_layout_says_and_nothing_else(
    tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    overlay = tiny_overlay(tiny_files, tmp_path / "run") | {"rounds": {"count": 1}, "stage": {"layers": "top:1"}}
    self_train(build_config("fast", overlay))
    run = RunFolder(tmp_path / "run")
    first, second = run.round(0), run.round(1)
    here = {run.config, run.inputs, run.kept_inputs, first.path, second.path, run.final, run.predictions}
    here |= {run.predictions_record, run.report, run.page, run.plots, run.path / ".lock"}
    assert set(run.path.iterdir()) == here
    assert {run.tokens, run.features} < set(run.kept_inputs.iterdir())
    assert set(first.path.iterdir()) == {first.model}
    assert set(second.path.iterdir()) == {second.pseudo, second.model, second.verdict}
    assert {path.name for path in first.model.iterdir()} == MODEL
    assert set(second.model.iterdir()) == {second.model / name for name in MODEL} | {second.meta_weights}
    assert all(path.is_file() for path in (second.labels, second.weights, second.evidence))


def test_names_are_those_that_runs_have_always_had() -> None:
    run = RunFolder(Path("runs/tickets"))
    assert str(run.round(0).model) == "runs/tickets/round-00/teacher"
    assert str(run.round(12).meta_weights) == "runs/tickets/round-12/student/meta_weights.parquet"
    assert str(run.round(3).labels) == "runs/tickets/round-03/pseudo/labels.parquet"
    assert str(run.round(3).review) == "runs/tickets/round-03/review"
    assert str(run.round(3).step("0f3a")) == "runs/tickets/round-03/0f3a.step"
    assert str(run.reviewed) == "runs/tickets/inputs/reviewed.json"
    assert str(run.drift) == "runs/tickets/drift.json"


def test_what_is_no_round_and_no_run_is_passed_over(tmp_path: Path) -> None:
    for name in ("round-01", "round-02", "round-02.bak", "round-x", "plots"):
        (tmp_path / "run" / name).mkdir(parents=True)
    (tmp_path / "run" / "config.json").touch()
    (tmp_path / "none").mkdir()
    run = RunFolder(tmp_path / "run")
    assert sorted(run.rounds(), key=lambda found: found.number) == [
        RoundFolder(run.path / "round-01", 1),
        RoundFolder(run.path / "round-02", 2),
    ]
    assert runs_below(tmp_path) == [run]


def test_a_half_written_step_is_no_step(tmp_path: Path) -> None:
    kept = RunFolder(tmp_path).round(1)
    kept.path.mkdir()
    for name in ("a.step", "b.step.part"):
        (kept.path / name).touch()
    assert [path.name for path in kept.steps()] == ["a.step"]
    assert [path.name for path in kept.half_steps()] == ["b.step.part"]


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("tickets", "tickets"),
        ("Kundenanfragen, März", "Kundenanfragen, März"),
        ("support/tickets", "support-tickets"),
        ("../../up", "up"),
        ("/etc/passwd", "etc-passwd"),
        ("..", "task"),
        ("/", "task"),
        (".hidden", ".hidden"),
        ("two\nlines", "two-lines"),
        ("\N{GRINNING FACE}" * 80, "\N{GRINNING FACE}" * 60),
    ],
)
def test_a_run_is_kept_below_runs_whatever_its_task_is_called(task: str, name: str, tmp_path: Path) -> None:
    folder = default_folder(task, "0123456789abcdef")
    assert folder == Path("runs") / f"{name}-0123456789ab"
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "config.json").touch()
    assert [run.path for run in runs_below(tmp_path / "runs")] == [tmp_path / folder]
