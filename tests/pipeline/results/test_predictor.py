"""Saved and loaded models give equal logits; files are predicted in a stream; damage is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny import sentences, tiny_overlay, write_jsonl

from listflow.data.errors import InputError
from listflow.pipeline.model.classifier import logits_of
from listflow.pipeline.results.outcome import publish
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.training.rounds import judge, load_model, prompt_tune, pseudo_label, train_student

TEXTS = ["w1 fine w2", "poor w3", "w4 w5 w6 w7 w8 w9 fine"]


@pytest.fixture(scope="module")
def finished(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A run's folder, and the logits that the model in memory gave ``TEXTS``."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with open_run(build_config("fast", tiny_overlay(tiny_files, folder), {"rounds": {"count": 1}})) as run:
        prompt_tune(run)
        pseudo_label(run, 1)
        train_student(run, 1)
        judge(run, 1)
        publish(run, 1)
        return folder, logits_of(load_model(run, 1), run.prompt.encode([(t, None) for t in TEXTS])).numpy()


def test_logits_are_equal_after_save_and_load(finished: tuple[Path, np.ndarray]) -> None:
    folder, expected = finished
    assert np.array_equal(Predictor.open(folder).logits(TEXTS), expected)


def test_the_final_folder_alone_is_enough(finished: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    shutil.copytree(finished[0] / "final", tmp_path / "moved")
    predictor = Predictor.open(tmp_path / "moved")
    assert np.array_equal(predictor.logits(TEXTS), finished[1])
    assert np.allclose(predictor.probabilities(TEXTS).sum(1), 1)
    assert set(predictor.predict(TEXTS)) <= {"negative", "positive"}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_file_is_predicted_row_by_row(finished: tuple[Path, np.ndarray], tmp_path: Path, suffix: str) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", sentences(30, 4, labelled=False))
    out = tmp_path / f"out.{suffix}"
    assert Predictor.open(finished[0]).predict_file(str(source), out) == 30
    assert out.stat().st_size > 0
    if suffix == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert [row["row"] for row in rows] == list(range(1, 31))
        assert rows[0].keys() == {"row", "label", "p_negative", "p_positive"}


def test_an_unknown_format_leaves_nothing(finished: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", sentences(3, 4, labelled=False))
    with pytest.raises(InputError, match=r"\.csv, \.tsv, \.jsonl or \.parquet"):
        Predictor.open(finished[0]).predict_file(str(source), tmp_path / "out.xlsx")
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


def test_damaged_weights_are_refused(finished: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    shutil.copytree(finished[0] / "final", tmp_path / "final")
    weights = tmp_path / "final" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(InputError, match="damaged or changed"):
        Predictor.open(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished model"):
        Predictor.open(tmp_path)
