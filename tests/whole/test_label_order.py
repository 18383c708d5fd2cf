"""A class is a place in the order of the labels, so nobody may change that order under a model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny import tiny_overlay

from listflow.data.errors import InputError
from listflow.pipeline.results.outcome import publish
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.record import load_config
from listflow.pipeline.training.rounds import judge, prompt_tune, pseudo_label, train_student

YTUNING = {"stage": "none", "head": {"kind": "ytuning", "width": 16}}
REORDERED = r"labels in another order \(positive, negative there, negative, positive here\)"


@pytest.fixture(scope="module")
def own_task(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny files with a task of one's own, whose labels do not stand in alphabetical order."""
    task = tmp_path_factory.mktemp("own") / "task.yaml"
    _order(task, "positive: good, negative: bad")
    return tiny_files | {"task": task}


@pytest.fixture(scope="module")
def finished(own_task: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    with open_run(_config(own_task, tmp_path_factory.mktemp("runs") / "run")) as run:
        prompt_tune(run)
        pseudo_label(run, 1)
        train_student(run, 1)
        judge(run, 1)
        publish(run, 1)
        return run.folder


def _config(files: dict[str, Path], folder: Path) -> RunConfig:
    return build_config("fast", tiny_overlay(files, folder), YTUNING, {"rounds": {"count": 1}})


def _order(task: Path, labels: str) -> None:
    task.write_text(f'name: tiny\ntemplate: "{{text}} it was {{mask}} ."\nlabels: {{{labels}}}\n')


def test_a_resumed_run_refuses_labels_in_another_order(finished: Path, own_task: dict[str, Path]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    _order(own_task["task"], "negative: bad, positive: good")
    for config in (load_config(finished), _config(own_task, finished)):
        with pytest.raises(InputError, match=REORDERED), open_run(config):
            pass
    _order(own_task["task"], "positive: good, negative: bad")
    with open_run(load_config(finished)) as run:
        assert run.labels == ["positive", "negative"]
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before


def test_labels_that_changed_otherwise_are_refused_too(finished: Path, own_task: dict[str, Path]) -> None:
    _order(own_task["task"], "positive: good, negative: poor")
    with pytest.raises(InputError, match="the task changed since"), open_run(load_config(finished)):
        pass
    _order(own_task["task"], "positive: good, negative: bad")


def test_predicting_knows_its_own_order_and_no_edited_one(finished: Path, own_task: dict[str, Path]) -> None:
    """The task file is not read again; the card is, and its digest is in the manifest."""
    _order(own_task["task"], "negative: bad, positive: good")
    assert Predictor.open(finished).labels == ["positive", "negative"]
    _order(own_task["task"], "positive: good, negative: bad")


def test_a_card_with_reordered_labels_is_refused(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "final", tmp_path / "final")
    path = tmp_path / "final" / "model.json"
    card = json.loads(path.read_text())
    card["task"]["labels"] = dict(reversed(card["task"]["labels"].items()))
    path.write_text(json.dumps(card))
    with pytest.raises(InputError, match="damaged or changed"):
        Predictor.open(tmp_path)
