"""What a run is fed, checked together: draws, notices, digests, reuse, and what is refused."""

import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import listflow.data.pools.record
import listflow.data.pools.sample
from listflow.data.corpora.ingest import ingest
from listflow.data.errors import InputError
from listflow.data.pools.inputs import LONE, Inputs, open_inputs, source_digests
from listflow.data.task import Columns, Task

TASK = Task.model_validate({"name": "t", "template": "{text} {mask}.", "labels": {"good": "great", "bad": "terrible"}})
PAIR = Task.model_validate({"name": "p", "template": "{text_a} {mask} {text_b}", "labels": ["same", "other"]})


def write(folder: Path, name: str, *lines: str) -> str:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """Four labelled rows, two test rows and three unlabelled ones."""
    return {
        "labelled": write(tmp_path, "few.csv", "text,label", "a,good", "b,bad", "c,good", "d,bad"),
        "unlabelled": [write(tmp_path, "pool.csv", "text", "u", "v", "w")],
        "test": write(tmp_path, "test.csv", "text,label", "x,good", "y,bad"),
        "folder": tmp_path / "run",
    }


def opened(files: dict[str, Any], task: Task = TASK, **changes: Any) -> Inputs:
    options = {"columns": None, "shots": None, "balanced": True, "seed": 1}
    return open_inputs(task, **(files | options | changes))


def test_clean_inputs_have_no_notices(files: dict[str, Any]) -> None:
    inputs = opened(files)
    assert [row.label for row in inputs.labelled] == ["good", "bad", "good", "bad"]
    assert [row.text for row in inputs.test] == ["x", "y"]
    assert inputs.pool.row_ids(range(3)) == ["pool:1", "pool:2", "pool:3"]
    assert inputs.notices == ()
    assert set(inputs.digests) == {"labelled", "unlabelled/pool", "test"}
    content = Path(files["labelled"]).read_bytes()
    assert inputs.digests["labelled"] == hashlib.sha256(content).hexdigest()


def test_no_test_rows(files: dict[str, Any]) -> None:
    inputs = opened(files, test=None)
    assert inputs.test == ()
    assert "test" not in inputs.digests


def test_shots_draw_from_the_labelled_file(files: dict[str, Any]) -> None:
    rows = opened(files, shots=2).labelled
    assert sorted(row.label or "" for row in rows) == ["bad", "good"]
    assert [row.number for row in rows] == sorted(row.number for row in rows)
    with pytest.raises(InputError, match="--shots from 1 to 4"):
        opened(files, shots=5)


def test_one_class_cannot_train(files: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="all have the label 'good'"):
        opened(files, labelled=write(tmp_path, "one.csv", "text,label", "a,good", "b,good"))
    with pytest.raises(InputError, match="or draw more with --shots"):
        opened(files, shots=1)


def test_columns_of_the_task_and_of_the_caller(files: dict[str, Any], tmp_path: Path) -> None:
    renamed = write(tmp_path, "renamed.csv", "body,y", "a,good", "b,bad")
    pool = [write(tmp_path, "bodies.csv", "body", "u")]
    columns = Columns(text="body", label="y")
    changes: dict[str, Any] = {"labelled": renamed, "unlabelled": pool, "test": None}
    assert len(opened(files, **changes, columns=columns).labelled) == 2
    task = TASK.model_copy(update={"columns": columns})
    assert len(opened(files, task, **changes).labelled) == 2
    with pytest.raises(InputError, match="--columns text=NAME"):
        opened(files, **changes)


def test_without_unlabelled_rows_the_labelled_texts_are_the_pool(files: dict[str, Any]) -> None:
    inputs = opened(files, unlabelled=[])
    assert {text for text, _ in inputs.pool.texts(range(len(inputs.pool)))} == {row.text for row in inputs.labelled}
    assert LONE in inputs.notices


def test_labelled_file_is_refused_as_unlabelled(files: dict[str, Any], tmp_path: Path) -> None:
    copy = tmp_path / "copy.csv"
    copy.write_bytes(Path(files["labelled"]).read_bytes())
    for source in (files["labelled"], str(copy)):
        with pytest.raises(InputError, match="is the labelled file too"):
            opened(files, unlabelled=[*files["unlabelled"], source])


def test_bad_test_row_names_its_file(files: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"t2\.csv, row 1: unknown label 'godo'"):
        opened(files, test=write(tmp_path, "t2.csv", "text,label", "x,godo"))


def test_notices_say_what_should_be_known(files: dict[str, Any], tmp_path: Path) -> None:
    task = TASK.model_copy(update={"labels": {"good": None, "bad": None, "odd": None}})
    inputs = opened(
        files,
        task,
        labelled=write(tmp_path, "l.csv", "text,label", "same,good", "SAME ,bad", "b,bad"),
        unlabelled=[write(tmp_path, "u.csv", "text,-", "u,", "B,", ",", ",")],
        test=write(tmp_path, "t.csv", "text,label", "b,good", "x,bad"),
    )
    assert inputs.notices == (
        "No labelled row has the label 'odd': it can only be learned from its label word.",
        "1 labelled text(s) occur with more than one label.",
        "1 test row(s) repeat a labelled text, so the test figures flatter.",
        "1 unlabelled row(s) repeat a labelled text and were left out.",
        "2 unlabelled row(s) have a blank text and were left out.",
        "The 1 unlabelled row(s) hold 1 text(s), fewer than the 3 labels, so next to nothing can be learned from them; "
        "pass more text with --unlabelled.",
    )
    assert inputs.pool.row_ids([0]) == ["u:1"]


def test_several_labels_without_a_row_are_one_sentence(files: dict[str, Any]) -> None:
    task = TASK.model_copy(update={"labels": dict.fromkeys(["good", "bad", *(f"odd{i}" for i in range(7))])})
    inputs = opened(files, task, unlabelled=files["unlabelled"], folder=files["folder"])
    assert inputs.notices[0] == (
        "No labelled row has one of 7 labels ('odd0', 'odd1', 'odd2', 'odd3', 'odd4' ...): they can only be learned "
        "from their label words."
    )
    assert sum("No labelled row" in notice for notice in inputs.notices) == 1


def test_fewer_shots_than_labels_is_said(files: dict[str, Any], tmp_path: Path) -> None:
    """A balanced draw takes a row of a label in turn, so labels go without, and never silently."""
    task = TASK.model_copy(update={"labels": {"good": None, "bad": None, "odd": None}})
    labelled = write(tmp_path, "three.csv", "text,label", "a,good", "b,bad", "c,odd")
    inputs = opened(files, task, labelled=labelled, shots=2)
    absent = next(label for label in task.labels if label not in {row.label for row in inputs.labelled})
    assert inputs.notices == (
        f"No labelled row has the label {absent!r}: it can only be learned from its label word; 2 rows are not enough "
        "for 3 labels, draw at least 3 with --shots.",
    )


@pytest.mark.parametrize("rows", [["same"] * 50, ["u"], ["Same", "same "] * 9])
def test_a_pool_that_teaches_nothing_is_said(files: dict[str, Any], tmp_path: Path, rows: list[str]) -> None:
    inputs = opened(files, unlabelled=[write(tmp_path, "poor.csv", "text", *rows)])
    assert inputs.notices == (
        f"The {len(rows)} unlabelled row(s) hold 1 text(s), fewer than the 2 labels, so next to nothing can be "
        "learned from them; pass more text with --unlabelled.",
    )


def test_pairs(files: dict[str, Any], tmp_path: Path) -> None:
    inputs = opened(
        files,
        PAIR,
        labelled=write(tmp_path, "l.csv", "text_a,text_b,label", "a,b,same", "a,c,other"),
        unlabelled=[write(tmp_path, "u.csv", "text_a,text_b", "a,b", "b,a", "c,a")],
        test=None,
    )
    assert inputs.pool.texts([0]) == [("b", "a")]
    assert len(inputs.notices) == 1


def building(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Count the corpora that are built from now on."""
    built: list[object] = []
    build = listflow.data.pools.sample.build_pool

    def counting(*args: Any, **options: Any) -> Any:
        built.append(args)
        return build(*args, **options)

    monkeypatch.setattr(listflow.data.pools.record, "build_pool", counting)
    return built


def test_the_pool_is_reused_with_its_notices(files: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    Path(files["unlabelled"][0]).write_text("text,-\nu,\n,\na,\nv,\n", "utf-8")
    first = opened(files)
    built = building(monkeypatch)
    second = opened(files)
    assert built == []
    assert second.notices == first.notices
    assert len(second.notices) == 2
    assert second.pool.texts([0]) == first.pool.texts([0])


def test_changed_inputs_build_the_pool_anew(files: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    opened(files)
    built = building(monkeypatch)
    Path(files["unlabelled"][0]).write_text("text\nu\nchanged\n", "utf-8")
    assert opened(files).pool.texts([1]) == [("changed", None)]
    opened(files, shots=2)
    assert len(built) == 2, "new content, then other labelled rows to leave out"


def test_a_corpus_has_the_rows_of_its_digest(files: dict[str, Any], tmp_path: Path) -> None:
    """However long it takes between the two, and whatever is ingested meanwhile."""
    corpus = tmp_path / "tickets"
    files["unlabelled"] = [str(corpus)]
    ingest(corpus, [write(tmp_path, "march.csv", "text", "u", "v")], Columns())
    digests = source_digests(files["labelled"], files["unlabelled"], files["test"])
    ingest(corpus, [write(tmp_path, "april.csv", "text", "w")], Columns())
    assert opened(files, digests=digests).pool.row_ids(range(2)) == ["tickets:1", "tickets:2"]
    assert source_digests(files["labelled"], files["unlabelled"], files["test"], digests) == digests
    assert source_digests(files["labelled"], files["unlabelled"], files["test"]) != digests
    shutil.rmtree(corpus)
    ingest(corpus, [write(tmp_path, "may.csv", "text", "x", "y")], Columns())
    assert source_digests(files["labelled"], files["unlabelled"], files["test"], digests) != digests
    with pytest.raises(InputError, match=r"tickets: its first shards are others than before"):
        opened(files, digests=digests, folder=tmp_path / "other")


@pytest.mark.parametrize("broken", ["unlabelled.arrow", "unlabelled.json"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[]"])
def test_a_damaged_pool_is_built_anew(files: dict[str, Any], broken: str, content: bytes | None) -> None:
    opened(files)
    path = files["folder"] / broken
    path.unlink() if content is None else path.write_bytes(content)
    assert len(opened(files).pool) == 3
    assert sorted(os.listdir(files["folder"])) == ["unlabelled.arrow", "unlabelled.json"]


def test_full_disk(files: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "Error writing bytes to file")

    monkeypatch.setattr(listflow.data.pools.record, "build_pool", full)
    with pytest.raises(InputError, match=r"run: .*No space left on device.*free some space"):
        opened(files)


def test_folder_that_is_a_file(files: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--run-dir"):
        opened(files, folder=Path(write(tmp_path, "taken", "")))


def test_rows_without_a_label_are_told_apart(files: dict[str, Any], tmp_path: Path) -> None:
    labelled = tmp_path / "some.jsonl"
    labels = ['"good"', '"bad"', "null", "NaN", '" "']
    labelled.write_text("".join(f'{{"text": "t{n}", "label": {label}}}\n' for n, label in enumerate(labels)))
    inputs = opened(files, labelled=str(labelled))
    assert [(row.text, row.label, row.number) for row in inputs.labelled] == [("t0", "good", 1), ("t1", "bad", 2)]
    assert inputs.notices == (
        f"3 row(s) of {labelled} have no label and are left out; pass the file to --unlabelled too, to learn from "
        "their texts.",
    )
    drawn = opened(files, labelled=str(labelled), shots=2, folder=tmp_path / "drawn")
    assert (drawn.labelled, drawn.notices) == (inputs.labelled, inputs.notices)


def test_rows_without_a_label_may_be_the_pool(files: dict[str, Any], tmp_path: Path) -> None:
    labelled = write(tmp_path, "some.csv", "text,label", "a,good", "b,bad", "c,", "d,good", "A,", "e,")
    more: dict[str, Any] = {"labelled": labelled, "unlabelled": [labelled, *files["unlabelled"]]}
    inputs = opened(files, **more)
    assert inputs.pool.row_ids(range(5)) == ["some:3", "some:6", "pool:1", "pool:2", "pool:3"]
    assert inputs.notices == (
        f"3 row(s) of {labelled} have no label and are unlabelled ones.",
        "1 unlabelled row(s) repeat a labelled text and were left out.",
    )
    assert opened(files, **more).pool.row_ids(range(2)) == ["some:3", "some:6"]
    drawn = opened(files, **more, shots=2, folder=tmp_path / "drawn")
    assert "d" not in {text for _, texts in drawn.pool.batches(9) for text, _ in texts}


def test_no_row_with_a_label(files: dict[str, Any], tmp_path: Path) -> None:
    labelled = write(tmp_path, "none.csv", "text,label", "a,", "b,")
    for shots in (None, 2):
        with pytest.raises(InputError, match=r"none\.csv: no row has a label; fill in column 'label'\.$"):
            opened(files, labelled=labelled, shots=shots)


def test_labels_that_are_likely_no_two_classes_are_said(files: dict[str, Any], tmp_path: Path) -> None:
    task = TASK.model_copy(update={"labels": dict.fromkeys(["Good", "good", "bad", "-1"])})
    labelled = write(tmp_path, "l.csv", "text,label", "a,good", "b,bad", "c,Good", "d,-1")
    assert opened(files, task, labelled=labelled).notices == (
        "The labels 'Good' and 'good' differ in case only and are 2 classes; write one way if they are one.",
        "The label '-1' is a class like others; leave the cell empty where it means that there is none.",
        "The 3 unlabelled row(s) hold 3 text(s), fewer than the 4 labels, so next to nothing can be learned from them; "
        "pass more text with --unlabelled.",
    )


def test_one_label_is_one_in_every_format(files: dict[str, Any], tmp_path: Path) -> None:
    """Booleans and whole numbers, which a format may write with a point; and Unicode spellings."""
    pool = files["unlabelled"]
    for labels, lines, values in (
        (["0", "1"], ["x,0", "y,1"], [0.0, 1.0]),
        (["false", "true"], ["x,FALSE", "y,True"], [False, True]),
        (["café", "tea"], ["x,cafe\u0301", "y,tea"], ["cafe\u0301", "tea"]),
    ):
        task = TASK.model_copy(update={"labels": dict.fromkeys(labels)})
        pq.write_table(pa.table({"text": ["a", "b"], "label": values}), tmp_path / "l.parquet")
        inputs = opened(
            files, task, labelled=str(tmp_path / "l.parquet"), unlabelled=pool, folder=tmp_path / labels[0],
            test=write(tmp_path, "t.csv", "text,label", *lines),
        )  # fmt: skip
        assert [row.label for row in inputs.labelled] == [row.label for row in inputs.test] == labels
        assert inputs.notices == ()
