"""Runs of the version before a run could have two views: fixtures/one_view_run, made by the code of commit 0fa4aa5.

Besides the run there is all that it was made of. FOLDER stands for where it is.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from committees import committee_config
from tiny import sentences, write_jsonl
from transformers import AutoModelForMaskedLM

from listflow.data.corpora.ingest import ingest
from listflow.data.errors import InputError
from listflow.data.files import file_digest
from listflow.data.task import Columns
from listflow.flows.cli.options import Asked
from listflow.pipeline.results.export import export
from listflow.pipeline.results.label_worker import label_range
from listflow.pipeline.results.labelling import Labelling
from listflow.pipeline.results.outcome import report_of
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.results.rendering import text_table, write_report
from listflow.pipeline.run.lineage import continued
from listflow.pipeline.run.opening import look_up
from listflow.pipeline.run.record import load_config, versions
from listflow.pipeline.run.status import status_of
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.checkpoint import read_json, verified, write_json

FIXTURE = Path(__file__).parents[1] / "fixtures" / "one_view_run"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder of the finished run, in a place of its own."""
    folder = tmp_path / "old"
    shutil.copytree(FIXTURE, folder)
    for path in (folder / "run").rglob("*.json"):
        path.write_text(path.read_text("utf-8").replace("FOLDER", str(folder)), "utf-8")
    final = folder / "run" / "final"
    manifest = read_json(final / "manifest.json")
    manifest["files"]["model.json"] = file_digest(final / "model.json")
    write_json(final / "manifest.json", manifest)
    record = read_json(folder / "run" / "config.json")
    write_json(folder / "run" / "config.json", record | {"versions": versions()})
    assert verified(final) is not None
    return folder / "run"


def texts_of(run: Path) -> list[str]:
    lines = (run.parent / "unlabelled.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def more_rows(run: Path) -> Path:
    return write_jsonl(run.parent / "more.jsonl", sentences(12, 8, labelled=False))


def test_it_predicts_what_it_did(old: Path) -> None:
    before = pd.read_parquet(old / "predictions.parquet")
    predictor = Predictor.open(old)
    found = predictor.probabilities(texts_of(old))
    np.testing.assert_allclose(found, before[["p_negative", "p_positive"]], atol=1e-5)
    assert predictor.predict(texts_of(old)) == before["label"].tolist()


def test_it_labels_and_is_exported(old: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "tickets"
    ingest(corpus, [str(old.parent / "unlabelled.jsonl")], Columns())
    work = Labelling.open(old, corpus, tmp_path / "labels")
    with work.begun():
        label_range(old, corpus, tmp_path / "labels", 1, 1)
    (shard,) = (tmp_path / "labels").glob("*.parquet")
    assert pd.read_parquet(shard)["label"].tolist() == pd.read_parquet(old / "predictions.parquet")["label"].tolist()
    export(old, tmp_path / "plain")
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / "plain").config.hidden_size == 16


def test_its_report_is_drawn_again(old: Path) -> None:
    report = report_of(old)
    assert (report.views, report.start) == ((), None)
    write_report(report, old)
    assert text_table(report).row_count == 3
    assert "self-training" in (old / "report.html").read_text("utf-8")
    assert (status_of(old).state, status_of(old).reached) == ("done", 1)


def test_it_goes_on_as_one_view(old: Path, tmp_path: Path) -> None:
    asked = Asked(continues=old, unlabelled=[str(old.parent / "unlabelled.jsonl"), str(more_rows(old))]).to_config()
    assert (asked.second, asked.face) == (None, "prompt")
    config = asked.model_copy(update={"rounds": continued(old, None).rounds, "run_dir": str(tmp_path / "two")})
    report = self_train(config)
    assert report.views == ()
    assert report.adopted is not None
    before = report_of(old).final
    assert before is not None
    assert report.adopted.accuracy == before.accuracy
    assert not (tmp_path / "two" / "inputs" / "vectors").exists()
    assert any("12 of 42 unlabelled rows are new since run" in notice for notice in report.notices)


def test_it_does_not_go_on_as_a_committee(old: Path, tiny_files: dict[str, Path], tmp_path: Path) -> None:
    second = committee_config(tiny_files, tmp_path / "x").second
    config = continued(old, tmp_path / "two").model_copy(update={"second": second})
    with pytest.raises(InputError, match="goes on as the prompt view alone, and this run is a committee of two views"):
        look_up(config).check_news()


def test_one_that_was_interrupted_is_refused_with_the_reason(old: Path) -> None:
    shutil.rmtree(old / "final")
    for name in ("report.json", "predictions.parquet", "predictions.json"):
        (old / name).unlink()
    before = {path: file_digest(path) for path in old.rglob("*") if path.is_file()}
    with pytest.raises(InputError) as refused:
        self_train(load_config(old))
    assert str(refused.value) == (
        f"{old} was begun by a version whose runs had no face, second, mixture, estimate, calibrate; finish it with "
        "that version, or start anew in another --run-dir."
    )
    assert before == {path: file_digest(path) for path in before}
