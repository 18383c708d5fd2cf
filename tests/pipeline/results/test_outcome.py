"""The report of a run of two views, from a run: its figures agree with each other and with what lies on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from committees import reached
from pictures import with_pictures
from tiny import TEXT_VIEW, sentences, tiny_overlay, write_jsonl

from listflow.pipeline.results.report import RunReport, TextTeacher
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.run import Progress
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.checkpoint import read_json, verified
from listflow.pipeline.storage.run_folder import MIXTURE, RunFolder

Finished = tuple[Path, RunReport, list[Progress]]


def finish(files: dict[str, Path], folder: Path, **changes: Any) -> Finished:
    said: list[Progress] = []
    config = build_config("fast", tiny_overlay(files, folder), {"second": TEXT_VIEW, **changes})
    return folder, self_train(config, said.append), said


@pytest.fixture(scope="module")
def finished(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of two views that both have a say, of labels whose shares its task states."""
    folder = tmp_path_factory.mktemp("outcome")
    task = folder / "task.yaml"
    task.write_text(tiny_files["task"].read_text() + "shares: {negative: 0.4, positive: 0.6}\n")
    labelled = write_jsonl(folder / "labelled.jsonl", sentences(12, 1))
    with with_pictures():
        return finish(tiny_files | {"task": task, "labelled": labelled}, folder / "run", mixture={"smallest": 0.0})


def test_each_view_says_how_far_it_is_believed_and_why(finished: Finished) -> None:
    folder, report, _ = finished
    stored = read_json(RunFolder(folder).round(0).committee / MIXTURE)
    assert [view.view for view in report.views] == ["prompt", "text"]
    for view, voice, other in zip(report.views, stored["voices"], stored["voices"][::-1], strict=True):
        assert (view.weight, view.nll, view.temperature) == (voice["weight"], voice["nll"], voice["temperature"])
        assert view.evidence.startswith(
            f"{voice['right']} of 12 labelled rows right without their own label, the other {other['right']}; "
        )
        assert view.decided_by == stored["decided_by"]
        assert "not computed" not in view.evidence


def test_the_text_teacher_says_what_it_is_made_of(finished: Finished) -> None:
    folder, report, _ = finished
    prompt, teacher = (view.teacher for view in report.views)
    made = verified(RunFolder(folder).round(0, "-text").model) or {}
    assert prompt is None
    assert isinstance(teacher, TextTeacher)
    assert [each.name for each in teacher.candidates] == [each["name"] for each in made["candidates"]]
    assert sum(each.weight for each in teacher.candidates) == pytest.approx(1)
    assert teacher.names_tell == made["names_tell"]
    assert list(teacher.pool_shares.values()) == made["shares"]
    assert teacher.labelled_shares == {"negative": 0.5, "positive": 0.5}
    assert teacher.stated_shares == {"negative": 0.4, "positive": 0.6}


def test_figures_of_the_views_and_of_both(finished: Finished) -> None:
    _, report, _ = finished
    assert report.start is not None
    assert report.labelled_only is not None
    assert all(list(record.students) == ["prompt", "text"] for record in report.rounds)
    assert reached(report.final) == reached(report.rounds[-1].student)
    assert list(report.baselines) == ["logistic regression", "label spreading"]
    assert None not in report.baselines.values()


def test_a_report_names_its_files_and_its_final_round(finished: Finished) -> None:
    folder, report, _ = finished
    assert report.data.files == {
        "labelled": ("labelled.jsonl",), "unlabelled": ("unlabelled.jsonl",), "test": ("test.jsonl",),
    }  # fmt: skip
    assert report.final_round == (verified(RunFolder(folder).final) or {})["round"]


def test_progress_says_which_view_is_at_work(finished: Finished) -> None:
    phases = {view: {each.phase for each in finished[2] if each.view == view} for view in ("", "prompt", "text")}
    assert {"tokenise", "embed", "label", "predict"} <= phases[""]
    assert {"labelled", "folds", "warmup", "judge", "test"} <= phases["prompt"]
    assert {"match", "warmup", "judge", "test"} <= phases["text"]
    assert not phases[""] & {"labelled", "match", "warmup", "tail", "judge"}
    assert all(each.done <= each.total for each in finished[2])


def test_a_view_of_no_say_is_not_computed_and_says_so(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    _, report, said = finish(tiny_files, tmp_path / "run", mixture={"smallest": 0.499}, rounds={"count": 1})
    silent, heard = sorted(report.views, key=lambda view: view.weight)
    assert (silent.weight, heard.weight) == (0, 1)
    assert "not computed after the start" in silent.evidence
    assert "not computed" not in heard.evidence
    assert list(report.rounds[0].students) == [heard.view]
    assert not [each for each in said if each.round and each.view == silent.view]


def test_what_is_decided_before_labels_says_so(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    labelled = write_jsonl(tmp_path / "labelled.jsonl", sentences(2, 1))
    _, report, _ = finish(tiny_files | {"labelled": labelled}, tmp_path / "run", rounds={"count": 1})
    assert {view.decided_by for view in report.views} == {"what is said before any label is used"}
    assert all(" of 2 labelled rows right before any label is used" in view.evidence for view in report.views)


def test_without_test_rows_there_is_nothing_to_compare(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    overlay = tiny_overlay(tiny_files, tmp_path / "run")
    overlay["data"] = {**overlay["data"], "test": None}  # type: ignore[dict-item]
    report = self_train(build_config("fast", overlay, {"second": TEXT_VIEW, "rounds": {"count": 1}}))
    assert (report.baselines, report.start, report.labelled_only) == ({}, None, None)
    assert len(report.views) == 2
