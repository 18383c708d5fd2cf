"""What goes is never missed: predicting, reporting and continuing work as before."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from committees import both_heard, committee_config, more_labels, reached
from finished_views import two_views
from kept import keep, put_back
from tiny import sentences, tiny_overlay, write_jsonl

from listflow.data.errors import InputError
from listflow.pipeline.results.outcome import report_of
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.record import load_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.checkpoint import new_folder, read_json, single_writer, write_json
from listflow.pipeline.storage.retention import DAY, removals, remove
from listflow.pipeline.storage.run_folder import RunFolder
from listflow.pipeline.training.rounds import prompt_tune

NOW = 2e9
TEXTS = ["w1 w2 fine", "poor w3"]


@pytest.fixture(scope="module")
def made(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An old run, a new one, and one that was interrupted."""
    parent = tmp_path_factory.mktemp("retention") / "runs"
    for name in ("old", "new", "interrupted"):
        config = build_config("fast", tiny_overlay(tiny_files, parent / name), {"stage": {"layers": "top:1"}})
        if name == "interrupted":
            with open_run(config) as run:
                prompt_tune(run)
        else:
            self_train(config)
            age = 40 if name == "old" else 1
            os.utime(parent / name / "report.json", (NOW - age * DAY, NOW - age * DAY))
    return keep(parent)


@pytest.fixture
def runs(made: Path) -> Path:
    """These runs as they were made."""
    return put_back(made)


def test_only_old_finished_runs_lose_anything(runs: Path) -> None:
    found = removals(runs, 30, NOW)
    assert {removal.run.name for removal in found} == {"old"}
    assert {removal.what for removal in found} == {"kept features", "tokens", "pseudo labels"}
    assert {removal.run.name for removal in removals(runs, 0.5, NOW)} == {"old", "new"}
    assert all(removal.path.exists() for removal in found)


def test_what_is_left_predicts_reports_and_goes_on(runs: Path, tiny_files: dict[str, Path], tmp_path: Path) -> None:
    old = runs / "old"
    before, report = Predictor.open(old).probabilities(TEXTS), report_of(old)
    size = sum(removal.bytes for removal in removals(runs, 30, NOW))
    assert remove(removals(runs, 30, NOW)) == size > 0
    assert not removals(runs, 30, NOW)
    assert (Predictor.open(old).probabilities(TEXTS) == before).all()
    assert report_of(old) == report
    more = write_jsonl(tmp_path / "more.jsonl", sentences(30, 9, labelled=False))
    config = load_config(old)
    data = config.data.model_copy(update={"unlabelled": (str(tiny_files["unlabelled"]), str(more))})
    own = {"continues": str(old), "run_dir": str(runs / "next"), "data": data}
    assert self_train(config.model_copy(update=own)).data.unlabelled == 90


def test_a_resumed_run_makes_again_what_went(runs: Path) -> None:
    old = runs / "old"
    weights = (old / "round-02" / "student" / "weights.safetensors").read_bytes()
    labels = (old / "round-02" / "pseudo" / "labels.parquet").read_bytes()
    remove(removals(runs, 30, NOW))
    self_train(load_config(old))
    assert (old / "round-02" / "student" / "weights.safetensors").read_bytes() == weights
    assert (old / "round-02" / "pseudo" / "labels.parquet").read_bytes() == labels


def test_refused_students_go_and_promoted_ones_stay(runs: Path) -> None:
    verdict = runs / "old" / "round-01" / "verdict.json"
    write_json(verdict, read_json(verdict) | {"promoted": False})
    gone = {str(removal.path.relative_to(runs / "old")) for removal in removals(runs, 30, NOW)}
    assert "round-01/student" in gone
    assert "round-02/student" not in gone


def test_a_run_that_someone_works_on_is_left_alone(runs: Path) -> None:
    with single_writer(runs / "old"):
        assert remove(removals(runs, 30, NOW)) == 0
    assert removals(runs, 30, NOW)


def test_a_committee_loses_both_views_refused_students_and_goes_on(
    tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("listflow.pipeline.method.gate.lost_classes", lambda *counts: [0])
    old = tmp_path / "runs" / "old"
    files = more_labels(tiny_files, tmp_path)
    report = self_train(committee_config(files, old, {"rounds": {"count": 1, "promote": "gated"}}))
    before = Predictor.open(old).probabilities(TEXTS)
    os.utime(old / "report.json", (NOW - 40 * DAY, NOW - 40 * DAY))
    found = {removal.path.relative_to(old).as_posix() for removal in removals(old.parent, 30, NOW)}
    assert found >= {"round-01/student", "round-01/student-text", "inputs/vectors", "inputs/tokens"}
    remove(removals(old.parent, 30, NOW))
    assert (Predictor.open(old).probabilities(TEXTS) == before).all()
    more = write_jsonl(tmp_path / "more.jsonl", sentences(30, 9, labelled=False))
    config = load_config(old)
    data = config.data.model_copy(update={"unlabelled": (str(files["unlabelled"]), str(more))})
    own = {"continues": str(old), "run_dir": str(old.parent / "next"), "data": data}
    assert reached(self_train(config.model_copy(update=own)).adopted) == reached(report.final)


def test_of_two_views_the_vectors_go_and_the_students_that_were_refused(
    tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "run"
    config = build_config("fast", two_views(tiny_files, run))
    with both_heard():
        self_train(config)
    before, report = Predictor.open(run).probabilities(TEXTS), report_of(run)
    students = {
        name: (run / "round-02" / name / "weights.safetensors").read_bytes() for name in ("student", "student-text")
    }
    verdict = run / "round-01" / "verdict.json"
    write_json(verdict, read_json(verdict) | {"promoted": False})
    (run / "round-02" / "left.step").touch()
    found = {str(removal.path.relative_to(run)): removal.what for removal in removals(run.parent, 0)}
    assert found == {
        "inputs/tokens": "tokens", "inputs/vectors": "sentence embeddings", "round-01/pseudo": "pseudo labels",
        "round-01/student": "refused student", "round-01/student-text": "refused student",
        "round-02/left.step": "step checkpoint", "round-02/pseudo": "pseudo labels",
    }  # fmt: skip
    assert remove(removals(run.parent, 0)) > 0
    assert (Predictor.open(run).probabilities(TEXTS) == before).all()
    assert report_of(run) == report
    write_json(verdict, read_json(verdict) | {"promoted": True})
    self_train(config)
    assert students == {name: (run / "round-02" / name / "weights.safetensors").read_bytes() for name in students}
    assert (run / "inputs" / "vectors" / "corpus" / "vectors.bin").exists()


@pytest.fixture
def light(tmp_path: Path) -> Path:
    """Two old runs as far as they can lose something: their tokens, and a refused student."""
    for name in ("a", "b"):
        run = RunFolder(tmp_path / "runs" / name)
        for folder in (run.tokens, run.round(1).model):
            folder.mkdir(parents=True)
            (folder / "x.bin").write_bytes(b"12345")
        write_json(run.config, {"format": 1})
        write_json(run.round(1).verdict, {"format": 1, "promoted": False})
        write_json(run.report, {"format": 1})
        with new_folder(run.final, {}) as final:
            (final / "x").touch()
    (tmp_path / "outside" / "pseudo").mkdir(parents=True)
    (tmp_path / "outside" / "pseudo" / "kept.txt").write_text("kept")
    return tmp_path / "runs"


@pytest.mark.parametrize("place", ["inputs/tokens", "round-02", "round-02/pseudo", "round-01/left.step"])
def test_no_link_out_of_a_run_is_followed_and_the_rest_goes(light: Path, place: str) -> None:
    link, outside = light / "a" / place, light.parent / "outside"
    if link.is_dir():
        shutil.rmtree(link)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside if place == "round-02" else outside / "pseudo")
    told: list[InputError] = []
    found = removals(light, 0, on_refused=told.append)
    assert [str(error) for error in told] == [
        f"{link} is a link, which is not followed; remove it, and what it leads to, by hand."
    ]
    lost = {removal.path.relative_to(light).as_posix() for removal in found}
    assert lost == {"a/inputs/tokens", "a/round-01/student", "b/inputs/tokens", "b/round-01/student"} - {f"a/{place}"}
    assert remove(found, told.append) == 5 * len(found)
    assert not any(removal.path.exists() for removal in found)
    assert (outside / "pseudo" / "kept.txt").read_text() == "kept"
    assert link.is_symlink()


def test_a_link_that_comes_between_looking_and_removing_ends_nothing(light: Path) -> None:
    found, told = removals(light, 0), list[InputError]()
    shutil.rmtree(light / "a" / "inputs" / "tokens")
    (light / "a" / "inputs" / "tokens").symlink_to(light.parent / "outside")
    assert remove(found, told.append) == 5 * 3
    assert [str(error).partition(" is a link")[0] for error in told] == [str(light / "a" / "inputs" / "tokens")]
    assert (light.parent / "outside" / "pseudo" / "kept.txt").exists()


def test_a_run_behind_a_link_loses_what_others_do(light: Path) -> None:
    (light / "a").rename(light.parent / "moved")
    (light / "a").symlink_to(light.parent / "moved")
    assert remove(removals(light, 0)) == 20


def test_what_cannot_be_removed_is_told_and_the_rest_goes(light: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is root may remove anything, so the refusal is played here."""
    whole = shutil.rmtree

    def guarded(path: Path, ignore_errors: bool = False) -> None:
        if path == light / "a" / "inputs" / "tokens":
            raise PermissionError(errno.EACCES, "other words")
        whole(path, ignore_errors)

    found, told = removals(light, 0), list[InputError]()
    monkeypatch.setattr(shutil, "rmtree", guarded)
    assert remove(found, told.append) == 15
    stays = light / "a" / "inputs" / "tokens"
    assert [str(error) for error in told] == [
        f"{stays} cannot be removed (Permission denied); mend its permissions, or remove it by hand."
    ]


def test_of_a_run_that_someone_works_on_it_is_told_too(light: Path) -> None:
    told: list[InputError] = []
    with single_writer(light / "a"):
        assert remove(removals(light, 0), told.append) == 10
    assert len(told) == 2
    assert all("another process is writing to" in str(error) for error in told)
