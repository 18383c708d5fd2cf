"""Texts that the tokenizer does not know: told in plan, run, report and predictions, and refused near all."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from tiny import sentences, tiny_overlay, write_jsonl
from typer.testing import CliRunner

from listflow.data.errors import InputError
from listflow.data.task import Task
from listflow.flows.cli.main import app
from listflow.pipeline.backbone.pretrained import base_folder
from listflow.pipeline.model.label_names import label_sentences
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.checkpoint import read_json
from listflow.pipeline.training.plan import make_plan


def of_emoji(folder: Path, known: int) -> Path:
    """24 texts of 10 words, all but ``known`` of them emoji."""
    rows = [{"text": " ".join(["w1"] * known + ["🍕", "🚂"] * 5)[: 3 * known + 2 * (10 - known)]} for _ in range(24)]
    return write_jsonl(folder / "strange.jsonl", rows)


def test_texts_that_the_backbone_cannot_read_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "few.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *([mark * n, mark] for mark in "🍕🚂" for n in range(1, 5))])
    pool = write_jsonl(tmp_path / "pool.jsonl", [{"text": "🍕🚂" * n} for n in range(1, 9)])
    config = build_config(
        "fast",
        {"data": {"labelled": str(tmp_path / "few.csv"), "unlabelled": [str(pool)]}, "run_dir": str(tmp_path / "run")},
    )
    said = r"few\.csv: backbone 'minilm' does not know 100\.0 % of the tokens of the labelled rows.*pass --backbone"
    with pytest.raises(InputError, match=said):
        make_plan(config)
    with pytest.raises(InputError, match=said), open_run(config):
        pass
    assert not (tmp_path / "run").exists()


def test_a_high_share_is_told_everywhere(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    pool = of_emoji(tmp_path, known=4)
    overlay = tiny_overlay(tiny_files, tmp_path / "run")
    overlay["data"] = {"labelled": str(tiny_files["labelled"]), "unlabelled": [str(pool)]}
    config = build_config("fast", overlay, {"rounds": {"count": 1}})
    plan = make_plan(config)
    assert plan.unknown["unlabelled"] == pytest.approx(0.6)
    assert any("does not know" in notice and "60.0 % of the unlabelled" in notice for notice in plan.notices)
    report = self_train(config)
    assert report.unknown == plan.unknown
    assert read_json(tmp_path / "run" / "report.json")["unknown"]["unlabelled"] == pytest.approx(0.6)
    assert any("60.0 % of the unlabelled" in notice for notice in report.notices)
    assert "60.0 % of unlabelled" in (tmp_path / "run" / "report.html").read_text("utf-8")
    out = str(tmp_path / "out.csv")
    done = CliRunner().invoke(app, ["predict", str(tmp_path / "run"), "--input", str(pool), "--output", out])
    assert done.exit_code == 0, done.output
    assert "does not know 60.0 % of the tokens of these texts" in " ".join(done.output.split())


def test_nothing_is_said_of_texts_that_are_known(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    rows = [{"text": f"w1 w2 w{i} good w4"} for i in range(20)]
    labelled = [{"text": row["text"], "label": row["label"]} for row in sentences(8, 1)]
    for row in labelled:
        row["text"] = " ".join(word for word in row["text"].split() if not word.isdigit())
    overlay = tiny_overlay(tiny_files, tmp_path / "run")
    few, pool = write_jsonl(tmp_path / "few.jsonl", labelled), write_jsonl(tmp_path / "pool.jsonl", rows)
    overlay["data"] = {"labelled": str(few), "unlabelled": [str(pool)]}
    plan = make_plan(build_config("fast", overlay))
    assert plan.unknown == {"labelled": 0.0, "unlabelled": 0.0}
    assert not any("does not know" in notice for notice in plan.notices)


def test_no_name_and_no_description_is_read_off_unknown_tokens() -> None:
    from transformers import AutoTokenizer

    task = Task(name="t", template="{text} {mask}", labels={"🍕": None, "🚂": None}, descriptions={"🍕": "🍕🍕 🍕"})
    assert label_sentences(task, AutoTokenizer.from_pretrained(base_folder())) == ((), ())
