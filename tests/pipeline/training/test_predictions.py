"""A prediction for every unlabelled row, also where the rounds read a sample of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from committees import both_heard
from tiny import TEXT_VIEW, sentences, tiny_overlay, write_jsonl

from listflow.data.errors import InputError
from listflow.pipeline.results.outcome import report_of
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.record import load_config
from listflow.pipeline.run.run import Progress
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.checkpoint import read_json

ROWS, POOL = 150, 50
VIEWS = {"one view": None, "a committee": TEXT_VIEW}


def sampled(files: dict[str, Path], folder: Path, second: object = None, **data: object) -> RunConfig:
    """A run of 150 rows in two files, one of which is blank, and a pool of 50."""
    rows = sentences(ROWS, 2, labelled=False)
    parts = rows[:90], [*rows[90:], {"text": ""}]
    for number, part in enumerate(parts):
        write_jsonl(folder.parent / f"part{number}.jsonl", part)
    overlay = tiny_overlay(files, folder)
    own = {"unlabelled": [str(folder.parent / f"part{number}.jsonl") for number in range(2)], "pool": POOL}
    return build_config("fast", overlay | {"second": second}, {"data": own | data})


@pytest.mark.parametrize("view", VIEWS)
def test_every_row_is_there_and_what_was_not_drawn_has_no_teacher(
    tiny_files: dict[str, Path], tmp_path: Path, view: str
) -> None:
    told: list[Progress] = []
    with both_heard():
        report = self_train(sampled(tiny_files, tmp_path / "run", VIEWS[view]), told.append)
    found = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    assert found["row_id"].tolist() == [f"part0:{i}" for i in range(1, 91)] + [f"part1:{i}" for i in range(1, 61)]
    assert found["corpus"].tolist() == ["part0"] * 90 + ["part1"] * 60
    texts = [row["text"] for row in sentences(ROWS, 2, labelled=False)]
    predictor = Predictor.open(tmp_path / "run")
    soft = found[["p_negative", "p_positive"]].to_numpy()
    np.testing.assert_allclose(predictor.probabilities(texts), soft, atol=1e-5)
    assert found["label"].tolist() == predictor.predict(texts)
    for number in (1, 2):
        labels = pd.read_parquet(tmp_path / "run" / f"round-0{number}" / "pseudo" / "labels.parquet")
        column = found.set_index("row_id")[f"teacher_round_{number}"]
        assert set(column.dropna().index) == set(labels["row_id"])
        assert len(labels) == 48
        first = labels.iloc[0]
        own = found.set_index("row_id").loc[first["row_id"], "label"]
        assert column[first["row_id"]] == pytest.approx(first[f"p_{own}"])
    assert 0 < found["meta_weight"].notna().sum() <= POOL
    assert report.data.unlabelled == ROWS
    told_of = "The rounds read a seeded sample of 50 of the 150 unlabelled rows (data.pool); the final model labels all"
    assert f"{told_of} of them." in report.notices
    assert read_json(tmp_path / "run" / "inputs.json")["rows"]["unlabelled"] == ROWS
    last = [each for each in told if each.phase == "predict"][-1]
    assert last.done == last.total == ROWS * (1 if VIEWS[view] is None else 2)


def test_a_pool_as_large_as_the_sources_changes_no_byte(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    for name, pool in (("plain", 20_000), ("limited", ROWS)):
        self_train(sampled(tiny_files, tmp_path / name, pool=pool))
    for name in (
        "predictions.parquet",
        "inputs/unlabelled.arrow",
        "inputs/tokens/ids.bin",
        "final/weights.safetensors",
    ):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "limited" / name).read_bytes()
    notices = report_of(tmp_path / "limited").notices
    assert not [notice for notice in notices if "sample" in notice]


def test_what_a_round_draws_is_in_the_pool_whatever_was_set(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    config = sampled(tiny_files, tmp_path / "run", pool=10)
    assert (config.data.pool, config.most_rows) == (10, 48)


def test_an_interrupted_run_ends_with_the_same_bytes_and_trains_nothing_again(
    tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    self_train(sampled(tiny_files, tmp_path / "whole"))

    def stop(now: Progress) -> None:
        if now.phase == "predict":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        self_train(sampled(tiny_files, tmp_path / "halves"), stop)
    (tmp_path / "halves" / "inputs" / "unlabelled.arrow").unlink()  # it is made again
    told: list[Progress] = []
    self_train(load_config(tmp_path / "halves"), told.append)
    assert {each.phase for each in told} <= {"tokenise", "read", "predict"}
    for name in ("predictions.parquet", "final/weights.safetensors", "inputs/unlabelled.arrow"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "halves" / name).read_bytes()


@pytest.mark.parametrize("gone", [True, False])
def test_a_source_that_changed_before_the_end_is_refused(
    tiny_files: dict[str, Path], tmp_path: Path, gone: bool
) -> None:
    config, path = sampled(tiny_files, tmp_path / "run"), tmp_path / "part1.jsonl"
    before = path.read_text("utf-8")

    def change(now: Progress) -> None:
        if (now.round, now.phase) == (2, "tail"):
            path.unlink(missing_ok=True)
            if not gone:
                path.write_text(json.dumps({"text": "another text"}) + "\n", "utf-8")

    with pytest.raises(InputError) as refused:
        self_train(config, change)
    assert str(refused.value) == (
        f"{path}: was changed or removed since the run was begun, and its rows are still to be labelled; restore it "
        f"and give `listflow resume {tmp_path / 'run'}`, which trains nothing again."
    )
    path.write_text(before, "utf-8")
    assert self_train(load_config(tmp_path / "run")).data.unlabelled == ROWS


def test_another_limit_is_another_run(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    self_train(sampled(tiny_files, tmp_path / "run"))
    with pytest.raises(InputError, match=r"another config \(data.pool is 50 there and 60 here\)"):
        self_train(sampled(tiny_files, tmp_path / "run", pool=60))
