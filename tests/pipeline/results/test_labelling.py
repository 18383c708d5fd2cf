"""A corpus is labelled shard by shard: the same rows whoever works, and never more than what is left."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import torch
from finished_views import PAIRS, committee_run, saved_backbone
from tiny import sentences, tiny_overlay, write_jsonl

from listflow.data.corpora.ingest import ingest
from listflow.data.errors import InputError
from listflow.data.files import file_digest
from listflow.data.shards import MANIFEST, dump_manifest, read_manifest
from listflow.data.task import Columns
from listflow.pipeline.model import arithmetic
from listflow.pipeline.model.arithmetic import quantises
from listflow.pipeline.results import label_worker, labelling
from listflow.pipeline.results.finished import Finished
from listflow.pipeline.results.label_worker import label_range
from listflow.pipeline.results.labelling import Labelling, Stopped
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.checkpoint import load_tensors, new_folder, read_json, save_tensors, write_json


@pytest.fixture(scope="module")
def run(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    self_train(build_config("fast", tiny_overlay(tiny_files, folder), {"rounds": {"count": 1}}))
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Four shards of 20 rows at most, 70 rows in all."""
    folder = tmp_path / "tickets"
    grow(folder, 70, 2)
    return folder


def grow(folder: Path, rows: int, seed: int) -> None:
    source = write_jsonl(folder.parent / "more.jsonl", sentences(rows, seed, labelled=False))
    ingest(folder, [str(source)], Columns(), rows_a_shard=20)


def label(run: Path, corpus: Path, out: Path) -> Labelling:
    """All of what is left, by one worker."""
    work = Labelling.open(run, corpus, out)
    with work.begun():
        for shard in work.left():
            label_range(run, corpus, out, shard.number, shard.number)
    return work


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.parquet"))}


def inodes(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in sorted(out.glob("*.parquet"))}


def shard_file(corpus: Path, number: int) -> Path:
    return corpus / next(shard.file for shard in read_manifest(corpus).shards if shard.number == number)


def test_a_labelling_is_one_table(run: Path, corpus: Path, tmp_path: Path) -> None:
    label(run, corpus, tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out")
    assert ds.dataset(tmp_path / "out").count_rows() == len(table) == 70
    assert table["row_id"].tolist() == [f"tickets:{row}" for row in range(1, 71)]
    assert list(table.columns) == ["row_id", "label", "confidence", "p_negative", "p_positive"]
    assert set(table.dtypes[["confidence", "p_negative", "p_positive"]].map(str)) == {"float32"}
    texts = [text for shard in read_manifest(corpus).shards for text in pd.read_parquet(corpus / shard.file)["text"]]
    predictor = Predictor.open(run)
    assert np.allclose(table[["p_negative", "p_positive"]], predictor.probabilities(texts), atol=1e-6)
    assert table["label"].tolist() == predictor.predict(texts)
    assert np.array_equal(table["confidence"], table[["p_negative", "p_positive"]].max(axis=1))


def test_records_say_what_a_shard_came_to(run: Path, corpus: Path, tmp_path: Path) -> None:
    work = label(run, corpus, tmp_path / "out")
    found = work.done()
    assert [found[shard.number].rows for shard in work.manifest.shards] == [20, 20, 20, 10]
    counts = pd.read_parquet(tmp_path / "out")["label"].value_counts().to_dict()
    told = {name: sum(record.per_class[name] for record in found.values()) for name in work.labels}
    assert {name: count for name, count in told.items() if count} == counts


def test_any_order_and_any_number_of_threads_give_the_same_bytes(run: Path, corpus: Path, tmp_path: Path) -> None:
    label(run, corpus, tmp_path / "one")
    torch.set_num_threads(2)  # by itself it would give other last digits
    other = Labelling.open(run, corpus, tmp_path / "two")
    with other.begun(), ThreadPoolExecutor(3) as pool:
        wanted = [pool.submit(label_range, run, corpus, other.folder, n, n) for n in (4, 2, 1, 3)]
        assert [future.result() for future in wanted] == [1, 1, 1, 1]
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_the_backbone_is_loaded_once(run: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    load = Finished.load_backbone
    monkeypatch.setattr(Finished, "load_backbone", lambda self, *args: loads.append("") or load(self, *args))
    label_worker._BACKBONES.clear()
    work = Labelling.open(run, corpus, tmp_path / "out")
    with work.begun(), ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda n: label_range(run, corpus, work.folder, n, n), range(1, 5)))
    assert not work.left()
    assert len(loads) == 1


def test_only_what_is_left_is_labelled(run: Path, corpus: Path, tmp_path: Path) -> None:
    work = Labelling.open(run, corpus, tmp_path / "out")
    with work.begun():
        assert label_range(run, corpus, work.folder, 1, 2) == 2
    before = inodes(work.folder)
    assert [shard.number for shard in work.left()] == [3, 4]
    standing = work.standing()
    assert (standing.shards, standing.rows, standing.all_rows) == (2, 40, 70)
    label(run, corpus, work.folder)
    after = inodes(work.folder)
    assert before.items() <= after.items()
    assert len(after) == 4
    assert label_range(run, corpus, work.folder, 1, 4) == 0


def test_a_grown_corpus_gets_its_new_shards_labelled(run: Path, corpus: Path, tmp_path: Path) -> None:
    label(run, corpus, tmp_path / "out")
    before = inodes(tmp_path / "out")
    grow(corpus, 30, 9)
    assert [shard.number for shard in label(run, corpus, tmp_path / "out").manifest.shards] == [1, 2, 3, 4, 5, 6]
    assert before.items() <= inodes(tmp_path / "out").items()
    assert len(pd.read_parquet(tmp_path / "out")) == 100


@pytest.mark.parametrize("damage", ["cut", "gone", "no record", "half a record"])
def test_a_damaged_output_is_made_again(run: Path, corpus: Path, tmp_path: Path, damage: str) -> None:
    work = label(run, corpus, tmp_path / "out")
    before, known = files(work.folder), inodes(work.folder)
    second = work.manifest.shards[1]
    if damage == "cut":
        work.output(second).write_bytes(work.output(second).read_bytes()[:-9])
    elif damage == "gone":
        work.output(second).unlink()
    elif damage == "no record":
        work.record(second).unlink()
    else:
        work.record(second).write_text('{"shard": ')
    assert [shard.number for shard in work.left()] == [2]
    label(run, corpus, work.folder)
    assert files(work.folder) == before
    assert {name for name, inode in inodes(work.folder).items() if inode != known[name]} <= {"000002.parquet"}


def test_a_shard_edited_by_hand_is_refused_and_the_others_labelled(run: Path, corpus: Path, tmp_path: Path) -> None:
    path = shard_file(corpus, 2)
    edited = pd.read_parquet(path).assign(text="edited")
    pa.parquet.write_table(pa.Table.from_pandas(edited, preserve_index=False), path)
    work = Labelling.open(run, corpus, tmp_path / "out")
    with work.begun(), pytest.raises(InputError, match=r"000002\.parquet is not what was ingested.*restore"):
        label_range(run, corpus, work.folder, 1, 4)
    assert sorted(work.done()) == [1, 3, 4]
    assert not list(work.folder.rglob(".*.part"))


def test_another_model_in_the_same_folder_is_refused(run: Path, corpus: Path, tmp_path: Path) -> None:
    label(run, corpus, tmp_path / "out")
    before = files(tmp_path / "out")
    other = tmp_path / "other"
    shutil.copytree(run / "final", other / "final")
    card, manifest = read_json(other / "final" / "model.json"), read_json(other / "final" / "manifest.json")
    card["task"]["lower"] = not card["task"]["lower"]
    (other / "final" / "model.json").write_text(json.dumps(card))
    manifest["files"]["model.json"] = file_digest(other / "final" / "model.json")
    (other / "final" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="holds labels of another model; choose another --output"):
        Labelling.open(other, corpus, tmp_path / "out")
    assert files(tmp_path / "out") == before


def test_the_moved_model_goes_on(run: Path, corpus: Path, tmp_path: Path) -> None:
    label(run, corpus, tmp_path / "out")
    shutil.copytree(run / "final", tmp_path / "moved" / "final")
    assert not Labelling.open(tmp_path / "moved", corpus, tmp_path / "out").left()


def test_another_corpus_of_the_same_name_is_refused(run: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    elsewhere = shutil.copytree(corpus, tmp_path / "elsewhere" / corpus.name)
    label(run, corpus, tmp_path / "out")
    assert not Labelling.open(run, elsewhere, tmp_path / "out").left()  # the same text
    grow(elsewhere, 20, 5)
    grow(corpus, 20, 6)
    label(run, corpus, tmp_path / "out")
    before = files(tmp_path / "out")
    shutil.rmtree(corpus)
    grow(corpus, 120, 5)
    for other in (elsewhere, corpus):
        with pytest.raises(InputError, match="holds labels of another corpus of this name; choose another --output"):
            Labelling.open(run, other, tmp_path / "out")
    assert files(tmp_path / "out") == before


def test_a_corpus_that_has_lost_shards_is_refused(run: Path, corpus: Path, tmp_path: Path) -> None:
    label(run, corpus, tmp_path / "out")
    manifest = read_manifest(corpus)
    fewer = replace(manifest, shards=manifest.shards[:2])
    (corpus / MANIFEST).write_text(dump_manifest(fewer, fewer))
    with pytest.raises(InputError, match="is of no shard of"):
        Labelling.open(run, corpus, tmp_path / "out")


def test_labels_of_a_version_that_pinned_no_shards_go_on(run: Path, corpus: Path, tmp_path: Path) -> None:
    card = label(run, corpus, tmp_path / "out").folder / "_labelling.json"
    stored = read_json(card)
    stored.pop("shards")
    card.write_text(json.dumps(stored))
    assert not label(run, corpus, tmp_path / "out").left()
    assert len(read_json(card)["shards"]) == 4


def test_what_cannot_be_labelled_is_refused(run: Path, corpus: Path, tmp_path: Path) -> None:
    plain = write_jsonl(tmp_path / "plain.jsonl", sentences(3, 1, labelled=False))
    with pytest.raises(InputError, match="is no corpus; make one of your files with `listflow ingest`"):
        Labelling.open(run, plain, tmp_path / "out")
    with pytest.raises(InputError, match="no finished model"):
        Labelling.open(tmp_path, corpus, tmp_path / "out")
    with pytest.raises(InputError, match="holds something else"):
        Labelling.open(run, corpus, corpus)
    pairs = tmp_path / "pairs"
    rows = write_jsonl(tmp_path / "pairs.jsonl", [{"text_a": "one", "text_b": "two"}])
    ingest(pairs, [str(rows)], Columns(), is_pair=True)
    with pytest.raises(InputError, match=r"has two texts a row where .* takes one text"):
        Labelling.open(run, pairs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_process_labels_into_a_folder(run: Path, corpus: Path, tmp_path: Path) -> None:
    work = Labelling.open(run, corpus, tmp_path / "out")
    with work.begun(), pytest.raises(InputError, match="another process is labelling"), work.begun():
        pass


def test_workers_stop_when_they_are_told_to(run: Path, corpus: Path, tmp_path: Path) -> None:
    work = Labelling.open(run, corpus, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt), work.begun(), work.stopping_workers():
        raise KeyboardInterrupt
    with pytest.raises(Stopped):
        label_range(run, corpus, work.folder, 1, 4)
    assert not work.done()
    assert len(label(run, corpus, work.folder).done()) == 4


def test_a_worker_of_an_older_driver_stops_at_its_next_look(
    run: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, (older, newer) = tmp_path / "out", (Labelling.open(run, corpus, tmp_path / "out") for _ in range(2))
    with older.begun():
        assert label_range(run, corpus, out, 1, 1, driver=older.driver) == 1
    with newer.begun():
        label_shard, at_work = label_worker.label_shard, []

        def watched(work: Labelling, *rest: Any) -> None:
            at_work.append(work.driver)
            label_shard(work, *rest)

        monkeypatch.setattr(label_worker, "label_shard", watched)
        with pytest.raises(Stopped):
            label_range(run, corpus, out, 2, 4, driver=older.driver)
        assert at_work == []  # not even a model is loaded for it
        assert label_range(run, corpus, out, 2, 3, driver=newer.driver) == 2
        with pytest.raises(Stopped):
            label_shard(older, older.manifest.shards[3], Predictor.open(run))
        assert not newer.is_done(newer.manifest.shards[3])
    assert not list(out.rglob(".*.part"))


def test_a_full_disk_is_told(run: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, os.strerror(28))

    work = Labelling.open(run, corpus, tmp_path / "out")
    with work.begun():
        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(InputError, match=r"cannot write to .* \(No space left on device\); free some space"):
            label_range(run, corpus, work.folder, 1, 1)
    assert not list(work.folder.rglob(".*.part"))


@pytest.mark.parametrize("is_pair", [False, True], ids=["texts", "pairs"])
def test_two_views_label_shards_as_the_run_predicts(tmp_path: Path, is_pair: bool) -> None:
    given = {"task": PAIRS} if is_pair else {}
    run = committee_run(tmp_path / "run", saved_backbone(tmp_path / "backbone"), **given)
    rows = [(row["text"], f"w{i} plot {row['text']}") for i, row in enumerate(sentences(70, 2, labelled=False))]
    source = write_jsonl(tmp_path / "rows.jsonl", [{"text": a, "text_a": a, "text_b": b} for a, b in rows])
    ingest(tmp_path / "corpus", [str(source)], Columns(), rows_a_shard=20, is_pair=is_pair)
    work, predictor = label(run, tmp_path / "corpus", tmp_path / "out"), Predictor.open(run)
    table = pd.read_parquet(tmp_path / "out")
    expected = predictor.probabilities(rows if is_pair else [text for text, _ in rows])
    columns = [f"p_{name}" for name in work.labels]
    assert len(table) == 70
    np.testing.assert_allclose(table[columns], expected, atol=1e-6)
    assert table["label"].tolist() == [work.labels[best] for best in expected.argmax(1)]


@pytest.mark.parametrize("what", ["weight", "temperature", "text.head.centre", "text.head.out.weight", "text"])
def test_the_digest_of_a_model_covers_every_view_and_how_they_are_mixed(tmp_path: Path, what: str) -> None:
    run = committee_run(tmp_path / "run", saved_backbone(tmp_path / "backbone"))
    card = read_json(run / "final" / "model.json")
    tensors = load_tensors(run / "final" / "weights.safetensors")
    if what in tensors:
        tensors[what] += 1e-3
    elif what == "text":
        card["backbone"]["text"] = "0" * 64
    else:
        card["views"][1][what] += 1e-3
    with new_folder(tmp_path / "other" / "final", {}) as aside:
        save_tensors(aside / "weights.safetensors", tensors)
        write_json(aside / "model.json", card)
    assert Finished.open(tmp_path / "other").digest() != Finished.open(run).digest()


def test_all_workers_multiply_as_the_first(
    run: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(labelling, "fastest", lambda dtype, device: "packed")
    monkeypatch.setattr(arithmetic, "packs", lambda: True)
    with Labelling.open(run, corpus, out).begun():
        assert read_json(out / "_labelling.json")["arithmetic"] == "packed"
    monkeypatch.setattr(arithmetic, "packs", lambda: False)
    with pytest.raises(InputError, match="packed bfloat16 weights"):
        label_range(run, corpus, out, 1, 4)
    assert not list(out.glob("*.parquet"))


def test_labels_of_an_earlier_version_go_on_as_they_were(run: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Labelling.open(run, corpus, out).begun():
        card = read_json(out / "_labelling.json")
    assert card.pop("arithmetic") == "unpadded"
    (out / "_labelling.json").write_text(json.dumps(card), "utf-8")
    assert Labelling.open(run, corpus, out).arithmetic == "padded"


def test_eight_bits_are_one_labelling_s_own(run: Path, corpus: Path, tmp_path: Path) -> None:
    if not quantises():
        pytest.skip("this processor multiplies no 8-bit numbers")
    committee = committee_run(tmp_path / "run", saved_backbone(tmp_path / "backbone"))
    plain, rounded = tmp_path / "plain", tmp_path / "rounded"
    label(committee, corpus, plain)
    with pytest.raises(InputError, match="made without --int8"):
        Labelling.open(committee, corpus, plain, int8=True)
    with Labelling.open(committee, corpus, rounded, int8=True).begun():
        label_range(committee, corpus, rounded, 1, 4)  # a worker is told by the folder
    both = [ds.dataset(str(out)).to_table().to_pandas() for out in (plain, rounded)]
    off = np.abs(both[0]["confidence"] - both[1]["confidence"])
    assert 0 < off.max() < 0.1
    with pytest.raises(InputError, match="no frozen layers"):
        Predictor.open(run, arithmetic="int8")
