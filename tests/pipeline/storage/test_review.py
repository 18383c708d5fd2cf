"""A review on disk: answers of several forms, bad ones, late ones."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reviews import answered, config_of, first_round

from listflow.data.errors import InputError
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.storage.review import (  # fmt: skip
    answer_review,
    check_answers,
    open_review,
    parse_answers,
    read_answers,
)

BAD = {
    "unknown row": ("row_id,label\nunlabelled:999,positive\n", "does not ask about row 'unlabelled:999'"),
    "unknown label": ("row_id,label\n{0},postive\n", r"unknown label 'postive' \(did you mean 'positive'\?\)"),
    "two labels": ("row_id,label\n{0},positive\n{0},negative\n", "is given as 'positive' and as 'negative'"),
    "no label": ("row_id,label\n{0},\n", "no row has a label"),
    "no column": ("row_id,text\n{0},x\n", "no column 'label', only 'row_id', 'text'; add it"),
}


@pytest.fixture(scope="module")
def waiting(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose first review is open."""
    folder = tmp_path_factory.mktemp("waiting") / "run"
    with open_run(config_of(tiny_files, folder)) as run:
        first_round(run)
    return folder


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_changes_nothing(waiting: Path, tmp_path: Path, name: str) -> None:
    text, words = BAD[name]
    (tmp_path / "answers.csv").write_text(text.format(open_review(waiting).rows[0].row_id))
    before = sorted(waiting.rglob("*"))
    with pytest.raises(InputError, match=words):
        answer_review(waiting, read_answers(str(tmp_path / "answers.csv")), "ann")
    assert sorted(waiting.rglob("*")) == before


def test_other_formats_and_other_columns_are_read(waiting: Path, tmp_path: Path) -> None:
    asked = open_review(waiting)
    ids = [row.row_id for row in asked.rows]
    table = pa.table({"text": ["x", "y", "z"], "row_id": ids[:3], "label": ["positive", None, " negative "]})
    pq.write_table(table, tmp_path / "answers.parquet")
    lines = [{"row_id": ids[0], "label": "positive"}, {"label": "negative", "row_id": ids[2], "sure": True}]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = [check_answers(asked, read_answers(str(tmp_path / f"answers.{end}"))) for end in ("parquet", "jsonl")]
    assert found[0] == found[1]
    assert [row.label for row in found[0]] == ["positive", "negative"]


def test_the_first_answer_counts(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    config = config_of(tiny_files, tmp_path / "run")
    asked = answered(config)
    with pytest.raises(InputError, match=r"the review of round 1 .* was answered by ann"):
        answer_review(tmp_path / "run", parse_answers(f"{asked.rows[4].row_id},positive"), "bob")


def test_lines_of_a_form() -> None:
    text = 'row_id,label\n\n a:1 , good \nb:2,\n"c,d:3",bad; e:4,good\n'
    assert [(a.row_id, a.label) for a in parse_answers(text)] == [("a:1", "good"), ("c,d:3", "bad"), ("e:4", "good")]
    with pytest.raises(InputError, match="line 1, 'a:1 good', is not row_id,label"):
        list(parse_answers("a:1 good"))


@pytest.mark.parametrize("text", ["", "row_id,label\n"])
def test_a_file_without_answers_is_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=r"a\.csv: is empty; it needs at least one row of data\."):
        list(read_answers(str(tmp_path / "a.csv")))
