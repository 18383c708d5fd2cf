"""Saved and loaded models give equal logits; files are predicted in a stream; damage is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny import sentences, tiny_overlay, write_jsonl

from listflow.data.errors import InputError
from listflow.data.task import parse_columns
from listflow.pipeline.model.classifier import logits_of
from listflow.pipeline.results.finished import shipped
from listflow.pipeline.results.outcome import publish
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.results.predictors import Predictors
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.storage.checkpoint import new_folder, read_json, write_json
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


NEW = [{"text": "the same for all", "body": "w1 fine w2"}, {"text": "the same for all", "body": "poor w3"}]


def told(finished: Path, out: Path, *, on_card: bool) -> Path:
    """The run as if it had been told of a column: on the card of its model, or, as earlier, in its record alone."""
    shutil.copytree(finished, out)
    record = read_json(out / "config.json")
    record["config"]["data"]["columns"] = 'text=body,label="in, tent"'
    write_json(out / "config.json", record)
    if on_card:
        columns = parse_columns(record["config"]["data"]["columns"]).model_dump()
        with new_folder(out / "final", {}) as folder:
            shutil.copy(finished / "final" / "weights.safetensors", folder)
            write_json(folder / "model.json", read_json(finished / "final" / "model.json") | {"columns": columns})
    return out


@pytest.mark.parametrize("on_card", [True, False])
def test_a_model_reads_the_columns_that_its_run_was_told_of(
    finished: tuple[Path, np.ndarray], tmp_path: Path, on_card: bool
) -> None:
    run, source = told(finished[0], tmp_path / "run", on_card=on_card), write_jsonl(tmp_path / "new.jsonl", NEW)
    predictor, plain = Predictor.open(run), Predictor.open(finished[0])
    wanted = [predictor.probabilities([row["body"]])[0, 1] for row in NEW]
    for one in (predictor, Predictor.open(run / "final"), pickle.loads(pickle.dumps(predictor))):  # noqa: S301
        one.predict_file(str(source), tmp_path / "out.jsonl")
        assert found_in(tmp_path / "out.jsonl") == pytest.approx(wanted, abs=1e-6)
        assert (one.run.columns.text, one.run.columns.label) == ("body", "in, tent")
    predictor.predict_file(str(source), tmp_path / "out.jsonl", columns="text=text")
    assert found_in(tmp_path / "out.jsonl") == pytest.approx(plain.probabilities([row["text"] for row in NEW])[:, 1])
    assert plain.run.columns == plain.task.columns


def found_in(path: Path) -> list[float]:
    return [json.loads(line)["p_positive"] for line in path.read_text("utf-8").splitlines()]


def test_a_moved_model_knows_its_columns_by_its_card(finished: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    for on_card, text in ((True, "body"), (False, "text")):
        run = told(finished[0], tmp_path / f"run-{on_card}", on_card=on_card)
        shutil.copytree(run / "final", tmp_path / f"moved-{on_card}")
        assert Predictor.open(tmp_path / f"moved-{on_card}").run.columns.text == text
        (run / "config.json").write_text("damaged")
        assert Predictor.open(run).run.columns.text == text


def test_a_file_with_plain_columns_alone_is_read_and_said(finished: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    run = told(finished[0], tmp_path / "run", on_card=True)
    source = write_jsonl(tmp_path / "new.jsonl", [{"text": text} for text in TEXTS])
    several = Predictors.open([run])
    assert several.notices(str(source)) == [
        f"{source} has no column 'body', which 'tiny' was trained on; 'text' is read."
    ]
    assert several.predict_file(str(source), tmp_path / "out.jsonl") == 3
    assert several.notices(str(write_jsonl(tmp_path / "both.jsonl", NEW))) == []
    other = write_jsonl(tmp_path / "other.jsonl", [{"words": "a"}])
    with pytest.raises(InputError, match=r"row 1: no column 'body', only 'words'; say --columns text=NAME\."):
        several.predict_file(str(other), tmp_path / "out.jsonl")


def test_the_card_has_columns_where_the_run_was_told_of_some(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    """And no word of them elsewhere: models are known by the bytes of their card."""
    renamed = {}
    for role in ("labelled", "unlabelled", "test"):
        rows = [json.loads(line) for line in tiny_files[role].read_text().splitlines()]
        body = [{"body": row.pop("text"), "text": "x"} | row for row in rows]
        renamed[role] = write_jsonl(tmp_path / f"{role}.jsonl", body)
    for columns, files in ((None, tiny_files), ("text=body", tiny_files | renamed)):
        overlay = tiny_overlay(files, tmp_path / str(columns))
        config = build_config("fast", overlay, {"rounds": {"count": 1}, "data": {"columns": columns}})
        with open_run(config) as run:
            prompt_tune(run)
            card = shipped(run, 0)[1]
        assert card.get("columns", {}).get("text") == (columns and "body")
