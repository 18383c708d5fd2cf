"""Runs whose rounds read a sample, and what goes on from them: only what is new is read, tokenised and computed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from committees import both_heard
from interruptions import hashed, killed_and_resumed
from tiny import TEXT_VIEW, sentences, tiny_overlay, write_jsonl

from listflow.data.corpora.ingest import ingest
from listflow.data.errors import InputError, NothingNew
from listflow.data.task import Columns
from listflow.flows.run.naming import title_of
from listflow.pipeline.backbone import cache
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.backbone.text_face import TextFace
from listflow.pipeline.results.outcome import report_of
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.lineage import continued
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.record import load_config
from listflow.pipeline.run.run import Progress
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.checkpoint import read_json

POOL, FIRST = 60, 400


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with both_heard():
        yield


def grow(corpus: Path, count: int, seed: int) -> None:
    source = write_jsonl(corpus.parent / f"{seed}.jsonl", sentences(count, seed, labelled=False))
    ingest(corpus, [str(source)], Columns())


@pytest.fixture
def first(tiny_files: dict[str, Path], tmp_path: Path) -> Path:
    """A finished run of two views on 400 rows, of which its rounds read 60; its corpus has got 20 more since."""
    grow(tmp_path / "tickets", FIRST, 2)
    overlay = tiny_overlay(tiny_files | {"unlabelled": tmp_path / "tickets"}, tmp_path / "one") | {"second": TEXT_VIEW}
    self_train(build_config("fast", overlay, {"data": {"pool": POOL}, "stage": {"layers": "top:1"}}))
    grow(tmp_path / "tickets", 20, 7)
    return tmp_path / "one"


def following(first: Path, name: str) -> RunConfig:
    config = continued(first, first.with_name(name))
    return config.model_copy(update={"rounds": config.rounds.model_copy(update={"foreign": "train"})})


class Counted:
    """How many rows were tokenised for the prompt, passed through the frozen layers, and read by the text face."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.found = {"tokens": 0, "layers": 0, "texts": 0}
        encode, computed, vectors = Prompt.encode, cache._computed, TextFace.vectors

        def counting_encode(prompt: Prompt, texts: list) -> object:  # type: ignore[type-arg]
            self.found["tokens"] += len(texts)
            return encode(prompt, texts)

        def counting_computed(piece, *rest):  # type: ignore[no-untyped-def]
            self.found["layers"] += len(piece)
            return computed(piece, *rest)

        def counting_vectors(face: TextFace, texts: list, *rest: object) -> object:  # type: ignore[type-arg]
            self.found["texts"] += len(texts)
            return vectors(face, texts, *rest)  # type: ignore[arg-type]

        patch.setattr(Prompt, "encode", counting_encode)
        patch.setattr(cache, "_computed", counting_computed)
        patch.setattr(TextFace, "vectors", counting_vectors)


def read_all(config: RunConfig) -> tuple[np.ndarray, np.ndarray]:
    """(features of the prompt view, vectors of the text view) of the whole pool."""
    with open_run(config) as run:
        prompt, text = (view.corpus.features for view in run.views)
        assert prompt is not None
        assert text is not None
        return np.array(prompt.values), np.array(text.values)


def test_only_new_rows_are_tokenised_and_computed(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    config = following(first, "two")
    with open_run(config) as run:
        built = run.inputs.built
        assert run.parent is not None
        assert run.parent.before is not None
        old = run.parent.places_of(built)
        assert old is not None
        assert run.fresh_rows().tolist() == np.flatnonzero(old < 0).tolist()
        assert (built.rows, built.news, len(run.corpus), len(run.fresh_rows())) == (420, 20, POOL, 20)
        assert any("20 of 420 unlabelled rows are new since one" in notice for notice in run.notices)
        assert title_of(run) == "two: +20 rows of tickets (7)"
        before, ids = run.parent.before.built.pool, built.pool.row_ids(range(POOL))
        assert [before.row_ids([place])[0] for place in old if place >= 0] == [
            row for row, place in zip(ids, old, strict=True) if place >= 0
        ]
        labelled, test = len(run.labelled), len(run.test or ())
        assert counted.found["tokens"] == 20 + labelled + test
        counted.found.update(layers=0, texts=0)
        for view in run.views:
            assert view.corpus.features is not None
            assert len(view.corpus.features.values)
    assert (counted.found["layers"], counted.found["texts"]) == (20, 20)


def test_what_is_copied_is_what_would_be_computed(first: Path) -> None:
    config = following(first, "two")
    found = read_all(config)
    plain = config.model_copy(update={"run_dir": str(first.with_name("plain"))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("listflow.pipeline.run.continuation.Parent.places_of", lambda parent, built: None)
        computed = read_all(plain)
    for one, two in zip(found, computed, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    tokens = [(first.with_name(name) / "inputs" / "tokens" / "ids.bin").read_bytes() for name in ("two", "plain")]
    assert tokens[0] == tokens[1]


def test_a_run_without_what_was_kept_is_gone_on_from_all_the_same(first: Path) -> None:
    found = read_all(following(first, "two"))
    for name in ("features", "vectors", "tokens"):
        shutil.rmtree(first / "inputs" / name)
    for one, two in zip(found, read_all(following(first, "three")), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_a_lineage_of_samples_labels_every_row_and_counts_what_is_new(first: Path) -> None:
    report = self_train(following(first, "one-002"))
    assert report.data.unlabelled == 420
    predictions = pd.read_parquet(first.with_name("one-002") / "predictions.parquet")
    assert predictions["row_id"].tolist() == [f"tickets:{row}" for row in range(1, 421)]
    drift = read_json(first.with_name("one-002") / "drift.json")
    assert [shard["shard"] for shard in drift["shards"]] == ["tickets/000001", "tickets/000002"]
    assert (drift["old"]["rows"], drift["new"]["rows"]) == (20, 20)
    with pytest.raises(NothingNew):
        self_train(following(first.with_name("one-002"), "none"))
    grow(first.with_name("tickets"), 9, 8)
    last = self_train(following(first.with_name("one-002"), "one-003"))
    assert last.lineage is not None
    assert [(step.run, step.new_rows) for step in last.lineage.steps] == [("one", 400), ("one-002", 20), ("one-003", 9)]
    assert report_of(first.with_name("one-003")).data.unlabelled == 429


def test_a_continuation_that_was_interrupted_ends_with_the_same_bytes(first: Path) -> None:
    self_train(following(first, "whole"))

    def stop(now: Progress) -> None:
        if (now.round, now.phase) == (1, "warmup"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        self_train(following(first, "halves"), stop)
    grow(first.with_name("tickets"), 30, 9)
    self_train(load_config(first.with_name("halves")))
    whole, halves = (hashed(first.with_name(name)) for name in ("whole", "halves"))
    assert whole == halves


@pytest.mark.long
def test_kills_change_no_byte_of_a_run_that_reads_a_sample(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    data = {name: str(tiny_files[name]) for name in ("labelled", "test")}
    rows = write_jsonl(tmp_path / "many.jsonl", sentences(300, 2, labelled=False))
    killed_and_resumed(
        tiny_files, tmp_path, kills=5, dropout=True, seed=13, data=data | {"unlabelled": [str(rows)], "pool": POOL}
    )


def test_without_what_a_sample_was_drawn_from_nothing_goes_on(first: Path) -> None:
    record = first / "inputs" / "unlabelled.json"
    record.unlink()
    with pytest.raises(InputError) as refused:
        self_train(following(first, "two"))
    assert str(refused.value) == (
        f"{record} is damaged or missing, and which rows {first} had is not known without it; restore it from a copy, "
        "or start anew."
    )
