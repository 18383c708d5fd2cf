"""Where labels are written, and what is never lost by that."""

from __future__ import annotations

import csv
import errno
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from listflow.data.corpora.ingest import ingest
from listflow.data.errors import InputError
from listflow.data.rows import read_rows
from listflow.data.task import Columns
from listflow.pipeline.results.tables import ENDINGS, write_tables

SHAPE = ("row", "label", "p_a", "p_b")
ASKED = "choose another --output, or give --force to replace it."


def table(labels: tuple[str, ...] = ("a", "b")) -> pa.Table:
    soft = [0.5] * len(labels)
    return pa.table({"row": range(1, len(labels) + 1), "label": labels, "p_a": soft, "p_b": soft})


def written(out: Path, force: bool = False, labels: tuple[str, ...] = ("a", "b")) -> int:
    return write_tables(out, "new.csv", [table(labels)], {SHAPE}, force)


def refused(out: Path, force: bool = False) -> str:
    before = (
        {path: path.read_bytes() for path in out.parent.rglob("*") if path.is_file()} if out.parent.is_dir() else {}
    )
    with pytest.raises(InputError) as raised:
        written(out, force)
    assert before == {path: path.read_bytes() for path in before}
    return str(raised.value)


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_earlier_output_is_replaced_and_nothing_else(tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"out{ending}"
    out.touch()
    assert written(out) == 2
    assert written(out, labels=("b", "a", "b")) == 3
    pool = {"row": [1], "label": ["a"], "text": ["by hand"]}
    other = tmp_path / f"hand{ending}"
    write_tables(other, "new.csv", [pa.table(pool)])
    assert refused(other) == f"{other}: exists, and is no earlier output of predict for this run; {ASKED}"
    assert written(other, force=True) == 2
    assert other.stat().st_size < out.stat().st_size


@pytest.mark.parametrize("content", [b"\xff\xfe", b"PAR1", b"\n", b"[1", b"\0" * 100])
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_cannot_be_read_is_not_replaced(tmp_path: Path, ending: str, content: bytes) -> None:
    out = tmp_path / f"out{ending}"
    out.write_bytes(content)
    assert refused(out).endswith(ASKED)


def test_no_file_of_a_corpus_or_of_a_run_is_written(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text\none\n")
    corpus, run = tmp_path / "tickets", tmp_path / "run"
    ingest(corpus, [str(tmp_path / "x.csv")], Columns())
    (run / "final").mkdir(parents=True)
    for name in ("config.json", "inputs.json"):
        (run / name).touch()
    (tmp_path / "link").symlink_to(run)
    for place, what, folder in (
        (corpus / "shards" / "000001.parquet", "corpus", corpus),
        (corpus / "new.csv", "corpus", corpus),
        (run / "predictions.parquet", "run", run),
        (run / "final" / "new.csv", "run", run),
        (tmp_path / "link" / "new.csv", "run", run),
    ):
        for force in (False, True):
            assert refused(place, force) == f"{place}: lies in the {what} {folder}; choose another --output."


def test_a_link_that_lies_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("kept")
    (tmp_path / "out.csv.part").symlink_to(tmp_path / "kept.txt")
    (tmp_path / "out.csv").symlink_to(tmp_path / "kept.txt")
    assert refused(tmp_path / "out.csv").endswith(ASKED)
    written(tmp_path / "out.csv", force=True)
    assert (tmp_path / "kept.txt").read_text() == "kept"
    assert not (tmp_path / "out.csv").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.txt", "out.csv", "out.csv.part"]


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_no_label_is_a_formula_to_a_spreadsheet(tmp_path: Path, ending: str) -> None:
    out, labels = tmp_path / f"out{ending}", ("=1+1", "@sum", "-2+3", "+a", "-1", "+1.5", "a=b", "'x")
    told = pa.table({"=task.label": labels, "row": range(len(labels))})
    write_tables(out, "new.csv", [told])
    with out.open(encoding="utf-8", newline="") as file:
        names, *rows = csv.reader(file, delimiter="," if ending == ".csv" else "\t")
    assert names == ["'=task.label", "row"]
    assert [row[0] for row in rows] == ["'=1+1", "'@sum", "'-2+3", "'+a", "-1", "+1.5", "a=b", "'x"]
    write_tables(out, "new.csv", [told], {("=task.label", "row")})
    write_tables(tmp_path / "out.parquet", "new.csv", [told])
    assert pq.read_table(tmp_path / "out.parquet").equals(told)


def test_a_marked_label_is_read_back_as_the_label_that_it_is(tmp_path: Path) -> None:
    told = pa.table({"text": ["one", "two", "three"], "label": ["=a", "'b", "c"]})
    write_tables(tmp_path / "out.csv", "new.csv", [told])
    rows = read_rows(str(tmp_path / "out.csv"), Columns(), is_pair=False, want_label=True, labels=["=a", "'b", "c"])
    assert [row.label for row in rows] == ["=a", "'b", "c"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def nowhere(*_: object) -> int:
        raise OSError(number, "other words")

    monkeypatch.setattr(os, "open", nowhere)
    assert refused(tmp_path / "out.csv").startswith(f"cannot write to {tmp_path} ({os.strerror(number)}); ")


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "out.csv").mkdir()
    assert refused(tmp_path / "out.csv") == f"{tmp_path / 'out.csv'}: is a folder; choose another --output."
    assert "(Is a directory)" in refused(tmp_path / "out.csv", force=True)
    (tmp_path / "file").touch()
    assert refused(tmp_path / "file" / "out.csv").endswith(
        f"the folder {tmp_path / 'file'} does not exist; create it first."
    )


def test_a_pipe_in_the_place_of_the_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out.csv")
    for force in (False, True):
        said = refused(tmp_path / "out.csv", force)
        assert said == f"{tmp_path / 'out.csv'}: is a pipe or a device, no file; choose another --output."
    assert (tmp_path / "out.csv").is_fifo()
