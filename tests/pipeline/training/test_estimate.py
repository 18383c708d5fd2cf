"""The estimate and the temperature of runs: what they are from, when they are left out, and who goes by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from committees import committee_config, more_labels
from tiny import sentences, tiny_overlay, write_jsonl

from listflow.pipeline.method.estimate import estimated
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.results.report import RunReport
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.checkpoint import load_tensors, read_json, verified
from listflow.pipeline.storage.run_folder import EVIDENCE, RunFolder
from listflow.pipeline.training import estimate
from listflow.pipeline.training.committee import mixture_of, without_own_label

SURE = 0.6
ONE = {"rounds": {"count": 1}}


def probabilities(run: Path) -> np.ndarray:
    table = pq.read_table(RunFolder(run).predictions)
    names = [name for name in table.column_names if name.startswith("p_")]
    return np.stack([table.column(name).to_numpy() for name in names], axis=1)


@pytest.fixture(scope="module")
def finished(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunReport]:
    folder = tmp_path_factory.mktemp("estimate")
    files = more_labels(tiny_files, folder)
    with pytest.MonkeyPatch.context() as patch:
        unsure(patch)
        return folder / "run", self_train(committee_config(files, folder / "run"))


def unsure(patch: pytest.MonkeyPatch) -> None:
    """Has the labels say that a model may be sure of six rows in ten."""
    patch.setattr("listflow.pipeline.method.estimate.allowed", lambda *known: SURE)


def test_it_is_what_the_held_out_rows_say(finished: tuple[Path, RunReport], tiny_files: dict[str, Path]) -> None:
    run, report = finished
    found = report.estimate
    assert found is not None
    assert found.rows == 12
    with open_run(committee_config(more_labels(tiny_files, run.parent), run)) as opened:
        kept = load_tensors(opened.round(0).committee / EVIDENCE)
        unseen = mixture_of(opened).logits(0, [kept["prompt"], kept["text"]])
        assert found == estimated(unseen, opened.gold)
    assert read_json(RunFolder(run).report)["estimate"]["right"] == found.right


def test_the_mean_confidence_on_the_pool_is_what_the_labels_allow(
    finished: tuple[Path, RunReport], tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    run, report = finished
    card = read_json(RunFolder(run).final / "model.json")
    assert 1 < card["temperature"] <= 20
    assert (verified(RunFolder(run).final) or {})["temperature"] == card["temperature"]
    files = more_labels(tiny_files, tmp_path)
    plain = tmp_path / "plain"
    other = self_train(committee_config(files, plain, {"calibrate": False}))
    assert "temperature" not in read_json(RunFolder(plain).final / "model.json")
    assert other.estimate == report.estimate
    before, after = probabilities(plain), probabilities(run)
    assert after.max(1).mean() == pytest.approx(SURE, abs=0.03)  # of the sample that agreement is measured on
    assert before.max(1).mean() > 0.65
    assert (after.argmax(1) == before.argmax(1)).all()
    cool = before.astype(np.float64) ** (1 / card["temperature"])
    np.testing.assert_allclose(after, cool / cool.sum(1, keepdims=True), atol=1e-5)


def test_whoever_asks_the_model_gets_the_cooled_probabilities(
    finished: tuple[Path, RunReport], tiny_files: dict[str, Path]
) -> None:
    run, _ = finished
    with open_run(committee_config(more_labels(tiny_files, run.parent), run)) as opened:
        texts = [text for text, _ in opened.inputs.pool.texts(range(20))]
    np.testing.assert_allclose(Predictor.open(run).probabilities(texts), probabilities(run)[:20], atol=1e-5)


def test_test_rows_have_no_part_in_either(
    finished: tuple[Path, RunReport], tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, report = finished
    unsure(monkeypatch)
    files = more_labels(tiny_files, tmp_path)
    config = committee_config(files, tmp_path / "run", {"data": {"test": None}})
    assert config.data.test is None
    assert self_train(config).estimate == report.estimate
    cards = [read_json(RunFolder(folder).final / "model.json") for folder in (run, tmp_path / "run")]
    assert cards[0]["temperature"] == cards[1]["temperature"]


def test_with_too_few_rows_to_hold_out_there_is_neither(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    labelled = write_jsonl(tmp_path / "labelled.jsonl", sentences(2, 1))
    report = self_train(committee_config(tiny_files | {"labelled": labelled}, tmp_path / "run", ONE))
    assert report.estimate is None
    assert "temperature" not in read_json(RunFolder(tmp_path / "run").final / "model.json")


@pytest.mark.parametrize(
    "overlay", [{"stage": {"kind": "list"}}, {"head": {"kind": "prototypes"}}], ids=["list", "text"]
)
def test_one_view_has_them_where_they_are_asked_for(
    overlay: dict[str, Any], tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    given = tiny_overlay(more_labels(tiny_files, tmp_path), tmp_path / "run")
    given = given if "stage" in overlay else {key: value for key, value in given.items() if key != "stage"}
    quiet = build_config("fast", given, overlay)
    assert (quiet.estimate, quiet.calibrate) == (False, False)
    config = build_config("fast", given, overlay, ONE, {"estimate": True, "calibrate": True, "mixture": {"folds": 3}})
    report = self_train(config)
    with open_run(config) as run:
        assert report.estimate == estimated(without_own_label(run), run.gold)
    assert report.estimate is not None
    assert report.estimate.rows == 12


def test_what_is_made_again_is_what_was_kept(
    finished: tuple[Path, RunReport], tiny_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, report = finished
    unsure(monkeypatch)
    config = committee_config(more_labels(tiny_files, run.parent), run)
    with open_run(config) as opened:
        kept = estimate.accuracy_and_temperature(opened, 2)
        monkeypatch.setattr(estimate, "load_tensors", lambda path: {})
        assert estimate.accuracy_and_temperature(opened, 2) == kept
        assert kept[0] == report.estimate


def test_presets_of_the_paper_have_neither() -> None:
    for preset in ("released", "published"):
        config = build_config(preset)
        assert (config.estimate, config.calibrate) == (False, False)
    assert build_config("fast").estimate
