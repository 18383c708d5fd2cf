"""A corpus only ever grows, holds no text twice, and is as it was when an ingest does not end."""

from __future__ import annotations

import json
import multiprocessing
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from listflow.data.corpora import ingest as module
from listflow.data.corpora import ingest as settling
from listflow.data.corpora.ingest import Ingested, ingest
from listflow.data.corpora.text_index import Keys, Seen
from listflow.data.errors import InputError
from listflow.data.pools.sample import build_pool
from listflow.data.rows import Row, Unlabelled, digest, read_rows
from listflow.data.shards import INDEX, KEPT_OUT_FILE, MANIFEST, corpus_folder, read_manifest
from listflow.data.task import Columns

COLUMNS = Columns()


def write(path: Path, texts: list[str], column: str = "text") -> str:
    path.write_text("".join(json.dumps({column: text}) + "\n" for text in texts), "utf-8")
    return str(path)


def add(folder: Path, *texts: str, **options: object) -> Ingested:
    source = write(folder.parent / "source.jsonl", list(texts))
    return ingest(folder, [source], COLUMNS, **options)  # type: ignore[arg-type]


def texts_of(folder: Path) -> list[str]:
    return [row.text for row in read_rows(str(folder), COLUMNS, is_pair=False)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tickets"


def test_rows_keep_their_numbers_as_the_corpus_grows(folder: Path) -> None:
    add(folder, "one", "two", "three", rows_a_shard=2)
    before = [(row.number, row.text) for row in read_rows(str(folder), COLUMNS, is_pair=False)]
    assert before == [(1, "one"), (2, "two"), (3, "three")]
    done = add(folder, "four")
    after = [(row.number, row.text) for row in read_rows(str(folder), COLUMNS, is_pair=False)]
    assert after == [*before, (4, "four")]
    assert [(shard.first, shard.rows) for shard in done.manifest.shards] == [(1, 2), (3, 1), (4, 1)]


def test_a_text_comes_in_once_over_all_of_the_history(folder: Path) -> None:
    done = add(folder, "Where is my parcel?", "Where is my parcel?", "where is  my parcel", "Hello", "")
    assert (done.added, done.dropped) == (2, {"exact": 1, "near": 1, "blank": 1})
    again = add(folder, "hello!", "Hello", "new")
    assert (again.added, again.dropped) == (1, {"exact": 1, "near": 1, "blank": 0})
    assert texts_of(folder) == ["Where is my parcel?", "Hello", "new"]
    assert again.manifest.dropped == {"exact": 2, "near": 2, "blank": 1}


def test_what_several_files_lose_is_counted_once(folder: Path, tmp_path: Path) -> None:
    sources = [write(tmp_path / f"{n}.jsonl", ["same", f"own {n}"]) for n in range(3)]
    done = ingest(folder, sources, COLUMNS)
    assert done.dropped["exact"] == done.manifest.dropped["exact"] == read_manifest(folder).dropped["exact"] == 2


def test_what_is_near_is_the_words(folder: Path) -> None:
    same = ["It's 5 o'clock.", "it s 5 O clock", "IT'S  5 O'CLOCK!!"]
    assert len({Keys.of(text, None).near for text in same}) == 1
    other = ["it s 6 o clock", ":)", ":(", "कि", "की", "नमस्ते दुनिया"]
    assert len({Keys.of(text, None).near for text in [same[0], *other]}) == 1 + len(other)
    assert Keys.of("a b", "c").near != Keys.of("a", "b c").near


def test_labelled_and_test_rows_stay_out(folder: Path, tmp_path: Path) -> None:
    held = write(tmp_path / "held.jsonl", ["secret one", "secret two"])
    done = add(folder, "Secret one.", "open", keep_out=[held])
    assert (done.added, done.dropped["kept out"]) == (1, 1)
    assert add(folder, "secret two").dropped == {"blank": 0, "kept out": 1}


@pytest.mark.parametrize("texts", [["a", "b", "c"], [f"row {i}" for i in range(5000)]])
def test_an_interrupted_ingest_leaves_the_corpus_as_it_was(
    folder: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(folder, "one", "two")
    before = {p: p.read_bytes() for p in [folder / MANIFEST, *folder.glob("shards/*")]}

    def never(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "settle", never)
    with pytest.raises(KeyboardInterrupt):
        add(folder, *texts, rows_a_shard=1000)
    monkeypatch.undo()
    assert texts_of(folder) == ["one", "two"]
    assert add(folder, *texts).added == len(texts)
    assert texts_of(folder) == ["one", "two", *texts]
    assert all(path.read_bytes() == content for path, content in before.items() if path.name != MANIFEST)


@pytest.mark.parametrize("first", [True, False])
def test_an_ingest_that_is_killed_at_any_moment_leaves_the_corpus_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    """Killed before each call that makes something last, and once more while that is undone."""
    texts, before, moments = ["a", "b", "c", "d"], [] if first else ["one", "two"], 0
    while True:
        moments += 1
        folder = tmp_path / str(moments)
        if not first:
            add(folder, "one", "two")
        if not killed_at(moments, monkeypatch, folder, texts):
            break
        found = texts_of(folder) if (folder / MANIFEST).exists() else []
        assert found in (before, [*before, *texts])
        if found == before:
            killed_at(3, monkeypatch, folder, texts)
        add(folder, *texts)
        assert texts_of(folder) == [*before, *texts]
        assert {str(path.relative_to(folder)) for path in folder.rglob("*.p*")} == {
            shard.file for shard in read_manifest(folder).shards
        }
    assert moments > 9


def killed_at(moment: int, monkeypatch: pytest.MonkeyPatch, folder: Path, texts: list[str]) -> bool:
    """Whether an ingest was killed before its so-manieth call; it ends where it makes fewer."""
    calls = iter(range(1, moment))

    def counted(call: Callable[..., None]) -> Callable[..., None]:
        def counting(*given: object, **named: object) -> None:
            if next(calls, None) is None:
                raise KeyboardInterrupt
            call(*given, **named)

        return counting

    with monkeypatch.context() as patched:
        for home, name in ((os, "replace"), (os, "fsync"), (Path, "unlink"), (Seen, "commit")):
            patched.setattr(home, name, counted(getattr(home, name)))
        try:
            add(folder, *texts, rows_a_shard=2)
        except KeyboardInterrupt:
            return True
    return False


def test_shards_of_a_lost_or_older_manifest_are_never_removed(folder: Path) -> None:
    add(folder, "one")
    older = (folder / MANIFEST).read_bytes()
    add(folder, "two", "three")
    newest = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).unlink()
    with pytest.raises(InputError, match=r"000001\.parquet is a shard that manifest\.json does not name"):
        add(folder, "four")
    (folder / MANIFEST).write_bytes(older)
    with pytest.raises(InputError, match=r"000002\.parquet is a shard that manifest\.json does not name"):
        add(folder, "four")
    (folder / MANIFEST).write_bytes(newest)
    assert add(folder, "four").added == 1
    assert texts_of(folder) == ["one", "two", "three", "four"]
    (folder / "shards" / "000003.parquet").rename(folder / "moved")
    (folder / "shards" / "000002.parquet").unlink()
    (folder / MANIFEST).write_bytes(older)
    assert add(folder, "two").added == 1


def test_what_was_begun_on_another_manifest_is_no_leftover(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(folder, "one")
    older = (folder / MANIFEST).read_bytes()
    add(folder, "two")

    def never(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(settling, "put", never)
    with pytest.raises(KeyboardInterrupt):
        add(folder, "three")
    monkeypatch.undo()
    assert (folder / "shards" / "000003.parquet").exists()
    (folder / MANIFEST).write_bytes(older)
    with pytest.raises(InputError, match=r"000002\.parquet is a shard"):
        add(folder, "four")


def test_an_ingest_that_stops_halfway_through_a_file_adds_nothing(folder: Path, tmp_path: Path) -> None:
    add(folder, "one")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "two"}\n{"text": "three"}\nno json\n')
    with pytest.raises(InputError, match="row 3: is not valid JSON"):
        ingest(folder, [str(bad)], COLUMNS)
    assert texts_of(folder) == ["one"]
    assert add(folder, "two", "three").added == 2


def test_a_lost_index_is_made_again(folder: Path) -> None:
    add(folder, "one", "two")
    (folder / INDEX).unlink()
    assert add(folder, "two", "three").dropped["exact"] == 1


def test_what_is_kept_out_stays_out_when_the_index_is_made_again(folder: Path, tmp_path: Path) -> None:
    add(folder, "one", keep_out=[write(tmp_path / "held.jsonl", ["secret one", "secret two"])])
    add(folder, "two", keep_out=[write(tmp_path / "more.jsonl", ["secret three", "one"])])
    add(folder, "three")
    (folder / INDEX).unlink()
    done = add(folder, "Secret one.", "secret two", "secret THREE", "one", "four")
    assert (done.added, done.dropped) == (1, {"blank": 0, "kept out": 3, "exact": 1})


def test_what_an_earlier_version_kept_out_is_written_down(folder: Path, tmp_path: Path) -> None:
    add(folder, "one", keep_out=[write(tmp_path / "held.jsonl", ["secret"])])
    (folder / KEPT_OUT_FILE).write_text("no digest\n")
    with pytest.raises(InputError, match=r"kept-out\.txt is damaged; delete it"):
        add(folder, "two")
    (folder / KEPT_OUT_FILE).unlink()
    add(folder, "two")
    (folder / INDEX).unlink()
    assert add(folder, "secret").added == 0


def test_a_broken_index_is_told(folder: Path) -> None:
    add(folder, "one")
    (folder / INDEX).write_bytes(b"not a database at all, but long enough to be taken for one" * 50)
    with pytest.raises(InputError, match="delete it, and it is made again"):
        add(folder, "two")


@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), sqlite3.OperationalError("disk is full")])
def test_a_full_disk_is_told_and_costs_nothing(
    folder: Path, problem: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(folder, "one")

    def full(*given: object) -> None:
        raise problem

    monkeypatch.setattr(module, "settle", full)
    with pytest.raises(InputError, match=r"nothing can be stored there .* The corpus is as it was"):
        add(folder, "two")
    monkeypatch.undo()
    assert texts_of(folder) == ["one"]
    assert add(folder, "two").added == 1


def _ingest_many(folder: Path, source: str) -> None:
    ingest(folder, [source], COLUMNS, rows_a_shard=500)


def test_two_ingests_at_once_are_safe(folder: Path, tmp_path: Path) -> None:
    """Half of the texts of each file are in the other one too."""
    context = multiprocessing.get_context("spawn")
    sources = [write(tmp_path / f"{n}.jsonl", [f"text {i}" for i in range(n * 1000, n * 1000 + 2000)]) for n in (0, 1)]
    running = [context.Process(target=_ingest_many, args=(folder, source)) for source in sources]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
        assert process.exitcode == 0
    found = texts_of(folder)
    assert len(found) == len(set(found)) == 3000
    assert [row.number for row in read_rows(str(folder), COLUMNS, is_pair=False)] == list(range(1, 3001))


def test_a_shard_that_was_edited_is_refused(folder: Path) -> None:
    add(folder, "one", "two")
    path = folder / "shards" / "000001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 1), path)
    with pytest.raises(InputError, match=r"000001\.parquet is not what was ingested"):
        texts_of(folder)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        texts_of(folder)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "x" * 101])
def test_a_name_that_could_be_a_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is no name for a corpus"):
        corpus_folder(tmp_path, name)


def test_a_corpus_has_one_kind_of_row(folder: Path, tmp_path: Path) -> None:
    add(folder, "one")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"text_a": "a", "text_b": "b"}\n')
    with pytest.raises(InputError, match=r"has one text a row; leave --pairs out, or ingest into another corpus\."):
        ingest(folder, [str(pairs)], COLUMNS, is_pair=True)
    with pytest.raises(InputError, match="no column 'text'"):
        ingest(folder, [str(pairs)], COLUMNS)
    assert ingest(tmp_path / "pairs", [str(pairs)], COLUMNS, is_pair=True).added == 1
    with pytest.raises(InputError, match=r"has two texts a row; say --pairs, or"):
        ingest(tmp_path / "pairs", [str(pairs)], COLUMNS)
    with pytest.raises(InputError, match=r"only 'text_a', 'text_b'; pairs of texts need .* for `ingest` --pairs\."):
        ingest(tmp_path / "new", [str(pairs)], COLUMNS)
    with pytest.raises(InputError, match="has two texts a row where the task wants one text"):
        list(read_rows(str(tmp_path / "pairs"), COLUMNS, is_pair=False))


def test_a_corpus_of_a_newer_format_is_refused(folder: Path) -> None:
    add(folder, "one")
    stored = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(stored | {"format": 2}))
    with pytest.raises(InputError, match="newer than this version"):
        add(folder, "two")


def test_a_damaged_manifest_is_refused_and_left(folder: Path) -> None:
    add(folder, "one")
    (folder / MANIFEST).write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        add(folder, "two")
    assert (folder / "shards" / "000001.parquet").exists()


def test_the_digest_is_that_of_the_rows(folder: Path) -> None:
    add(folder, "one")
    first = digest(str(folder))
    add(folder, "one")
    assert digest(str(folder)) == first
    add(folder, "two")
    assert digest(str(folder)) != first


def test_a_run_reads_a_corpus_as_it_reads_a_file(folder: Path, tmp_path: Path) -> None:
    add(folder, "one", "two")
    built = build_pool(Unlabelled((str(folder),), COLUMNS, False), tmp_path / "run.arrow")
    assert built.pool.row_ids([0, 1]) == ["tickets:1", "tickets:2"]
    assert built.pool.texts([1]) == [("two", None)]


def test_a_corpus_has_no_labels_to_give(folder: Path) -> None:
    add(folder, "one")
    with pytest.raises(InputError, match="whose rows have no labels"):
        list(read_rows(str(folder), COLUMNS, is_pair=False, want_label=True))


def test_shards_say_where_they_come_from(folder: Path) -> None:
    add(folder, "one")
    (shard,) = read_manifest(folder).shards
    assert shard.source == "source"
    assert shard.source_sha256 == digest(str(folder.parent / "source.jsonl"))
    assert shard.time.startswith("20")


def test_a_refused_first_ingest_leaves_no_folder(tmp_path: Path) -> None:
    folder, bad = tmp_path / "corpora" / "tickets", write(tmp_path / "bad.jsonl", ["one"], "body")
    with pytest.raises(InputError, match="no column 'text'"):
        ingest(folder, [bad], COLUMNS)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]
    (tmp_path / "corpora").mkdir()
    folder.mkdir()
    with pytest.raises(InputError, match="no column 'text'"):
        ingest(folder, [bad], COLUMNS)
    assert folder.is_dir()
    add(folder, "one")
    with pytest.raises(InputError, match="no column 'text'"):
        ingest(folder, [bad], COLUMNS)
    assert texts_of(folder) == ["one"]


def test_who_waits_for_a_first_ingest_that_is_refused_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tickets"
    bad, good = write(tmp_path / "bad.jsonl", ["one"], "body"), write(tmp_path / "good.jsonl", ["two"])

    def keep_until_another_waits(source: str, *rest: Any, **options: Any) -> Iterator[Row]:
        if source == bad:
            second.start()
            time.sleep(0.5)
        return read_rows(source, *rest, **options)

    second = threading.Thread(target=lambda: ingest(folder, [good], COLUMNS))
    monkeypatch.setattr(module, "read_rows", keep_until_another_waits)
    with pytest.raises(InputError, match="no column 'text'"):
        ingest(folder, [bad], COLUMNS)
    second.join()
    assert texts_of(folder) == ["two"]


@pytest.mark.parametrize(
    "changed", [{"number": "1"}, {"number": -1}, {"number": True}, {"rows": 1.5}, {"sha256": 3}, {"first": None}]
)
def test_a_manifest_whose_values_are_of_another_kind_is_damaged(tmp_path: Path, changed: dict[str, object]) -> None:
    (tmp_path / "x.csv").write_text("text\none\n")
    ingest(tmp_path / "tickets", [str(tmp_path / "x.csv")], Columns())
    path = tmp_path / "tickets" / "manifest.json"
    stored = json.loads(path.read_text())
    stored["shards"][0] |= changed
    path.write_text(json.dumps(stored))
    with pytest.raises(InputError) as raised:
        read_manifest(tmp_path / "tickets")
    assert str(raised.value) == f"{path} is damaged; restore it from a backup, or ingest into a new corpus."
