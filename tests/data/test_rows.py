"""Reading rows: every format, and every way a file can be wrong, in one sentence."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from listflow.data.errors import InputError
from listflow.data.formats import is_hub_id
from listflow.data.rows import Row, digest, read_rows, stem
from listflow.data.task import Columns

ODD = 'said "[MASK]", {text} & <mask>\n{{second}} line, 100%'
RECORDS = [
    {"text": ODD, "text_a": "one", "text_b": "two", "label": "a"},
    {"text": "Ünï\tcode 🙂", "text_a": "three", "text_b": "four", "label": "b"},
]


def write_csv(path: Path, delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(RECORDS[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(RECORDS)


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), "utf-8")


WRITERS: dict[str, Callable[[Path], None]] = {
    "csv": write_csv,
    "tsv": lambda path: write_csv(path, "\t"),
    "jsonl": write_jsonl,
    "parquet": lambda path: pq.write_table(pa.Table.from_pylist(RECORDS), path),
}


def file(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def rows(source: str, columns: Columns | None = None, is_pair: bool = False, **options: Any) -> list[Row]:
    return list(read_rows(source, columns or Columns(), is_pair=is_pair, **options))


def labelled(source: str) -> list[Row]:
    return rows(source, labels=["positive", "negative"], want_label=True)


def complaint(read: Callable[[str], object], source: str) -> str:
    """The sentence that reading this source ends with: one line, and it names the file."""
    with pytest.raises(InputError) as raised:
        read(source)
    sentence = str(raised.value)
    assert "\n" not in sentence
    assert source in sentence
    return sentence


@pytest.mark.parametrize("ending", WRITERS)
def test_all_formats_read_alike(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"some.{ending}"
    WRITERS[ending](path)
    assert rows(str(path), want_label=True) == [
        Row(ODD, None, "a", 1),
        Row("Ünï\tcode 🙂", None, "b", 2),
    ]
    assert rows(str(path), is_pair=True) == [Row("one", "two", None, 1), Row("three", "four", None, 2)]


@pytest.mark.parametrize("name", ["x.csv", "x.CSV", "x.jsonl"])
def test_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path, name: str) -> None:
    content = '{"text": "hi"}\n' if name.endswith("jsonl") else "text\nhi\n"
    assert rows(file(tmp_path, name, b"\xef\xbb\xbf" + content.encode())) == [Row("hi", None, None, 1)]


def test_renamed_columns_numbers_and_blank_ends(tmp_path: Path) -> None:
    source = file(tmp_path, "x.jsonl", '{"body": "  a  b ", "y": 1}\n\n{"body": 7, "y": 0}\n')
    read = rows(source, Columns(text="body", label="y"), labels=["0", "1"], want_label=True)
    assert read == [Row("a  b", None, "1", 1), Row("7", None, "0", 2)]


def test_rows_stream(tmp_path: Path) -> None:
    source = file(tmp_path, "x.jsonl", '{"text": "fine"}\nbroken\n')
    assert next(read_rows(source, Columns(), is_pair=False)).text == "fine"


def test_huge_csv_field(tmp_path: Path) -> None:
    assert len(rows(file(tmp_path, "x.csv", f"text\n{'long ' * 100_000}\n"))[0].text) == 499_999


def test_windows_and_quoted_line_ends(tmp_path: Path) -> None:
    source = file(tmp_path, "x.csv", 'text,label\r\n"two\r\nlines",a\r\n\r\nlast,b')
    assert [row.text for row in rows(source, want_label=True)] == ["two\r\nlines", "last"]


def test_blank_unlabelled_rows_are_left_to_the_caller(tmp_path: Path) -> None:
    read = rows(file(tmp_path, "x.csv", "text\nfirst\n\n  \nlast\n"))
    assert [(row.text, row.number) for row in read] == [("first", 1), ("", 2), ("", 3), ("last", 4)]


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    file(tmp_path, "train.jsonl", "")
    assert "did you mean 'train.jsonl'" in complaint(rows, str(tmp_path / "trian.jsonl"))
    assert "no such file" in complaint(digest, str(tmp_path / "no" / "file.csv"))


def test_half_a_hub_id_says_how_to_write_one() -> None:
    assert "owner/name:config:split" in complaint(rows, "owner/name:test")


def test_complaint_names_the_option_of_a_column(tmp_path: Path) -> None:
    source = file(tmp_path, "x.csv", "body\nhi\n")
    assert "--columns text=NAME" in complaint(lambda path: rows(path, Columns(text="text_a", text_a="text_a")), source)


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    assert "is a folder" in complaint(rows, str(tmp_path))


@pytest.mark.parametrize("name", ["x.txt", "x.gz", "x"])
def test_unsupported_ending(tmp_path: Path, name: str) -> None:
    assert ".jsonl" in complaint(rows, file(tmp_path, name, "text\nhi\n"))


@pytest.mark.parametrize(
    ("name", "content"), [("x.csv", ""), ("x.csv", "text\n"), ("x.jsonl", ""), ("x.jsonl", "\n\n")]
)
def test_empty_file(tmp_path: Path, name: str, content: str) -> None:
    assert "is empty" in complaint(rows, file(tmp_path, name, content))


def test_empty_parquet(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert "is empty" in complaint(rows, str(path))


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("x.csv", "Text,intent\nhi,a\n", "x.csv:"),
        ("x.jsonl", '{"text": "a"}\n{"Text": "hi", "intent": 1}\n', "x.jsonl, row 2:"),
    ],
)
def test_missing_column_lists_the_columns(tmp_path: Path, name: str, content: str, place: str) -> None:
    sentence = complaint(rows, file(tmp_path, name, content))
    assert place in sentence
    assert "no column 'text' (did you mean 'Text'?), only 'Text', 'intent'" in sentence
    assert "--columns text=NAME" in sentence


def test_missing_column_of_a_renamed_pair(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"premise": ["a"]}), path)
    columns = Columns(text_a="premise", text_b="hypothesis")
    assert "--columns text_b=NAME" in complaint(lambda source: rows(source, columns, True), str(path))


def test_column_that_occurs_twice(tmp_path: Path) -> None:
    assert "occurs twice" in complaint(rows, file(tmp_path, "x.csv", "text,text\na,b\n"))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("hi,postive", "row 2: unknown label 'postive' (did you mean 'positive'?)"),
        ("hi,Negative", "did you mean 'negative'"),
        ("hi,zzz", "row 2: unknown label 'zzz'; the task has positive, negative"),
        ("hi,", "row 2: the label is missing"),
        (" ,positive", "row 2: the text is blank"),
        ("hi", "row 2: has 1 fields where the header has 2"),
        ("hi, there,positive", "row 2: has 3 fields"),
        ('"hi" there,positive', "row 2: is not valid csv"),
        ('"never closed,positive', "row 2: is not valid csv"),
    ],
)
def test_bad_labelled_csv_rows(tmp_path: Path, row: str, expected: str) -> None:
    assert expected in complaint(labelled, file(tmp_path, "x.csv", f"text,label\nfine,positive\n{row}\n"))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ('{"text": "hi"', "row 2: is not valid JSON"),
        ("[" * 100_000, "row 2: is not valid JSON"),
        ('["hi"]', "row 2: is not a JSON object"),
        ('{"text": ["hi"], "label": "positive"}', "row 2: column 'text' holds a list"),
        ('{"text": "\\ud83d", "label": "positive"}', "row 2: column 'text' holds half a character"),
        ('{"text": null, "label": "positive"}', "row 2: the text is blank"),
        ('{"text": "hi", "label": null}', "row 2: the label is missing"),
    ],
)
def test_bad_labelled_json_rows(tmp_path: Path, row: str, expected: str) -> None:
    source = file(tmp_path, "x.jsonl", f'{{"text": "fine", "label": "positive"}}\n{row}\n')
    assert expected in complaint(labelled, source)


def test_blank_second_text(tmp_path: Path) -> None:
    source = file(tmp_path, "x.csv", "text_a,text_b,label\nhi,,a\n")
    assert "row 1: the text is blank" in complaint(lambda path: rows(path, None, True, want_label=True), source)


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl"])
def test_latin1_bytes(tmp_path: Path, name: str) -> None:
    lines = ['{"text": "ok"}'] * 3 if name == "x.jsonl" else ["text", "ok", "ok"]
    sentence = complaint(rows, file(tmp_path, name, "\n".join(lines).encode() + b"\ncaf\xe9\n"))
    assert "line 4: is not UTF-8" in sentence
    assert "iconv -f latin1 -t utf-8" in sentence


def test_utf16_file(tmp_path: Path) -> None:
    assert "iconv -f utf-16 " in complaint(rows, file(tmp_path, "x.csv", "text\nhi\n".encode("utf-16")))


def test_broken_parquet(tmp_path: Path) -> None:
    assert "is not readable parquet" in complaint(rows, file(tmp_path, "x.parquet", b"PAR1 no"))


def test_digest_is_of_the_content(tmp_path: Path) -> None:
    first, second = file(tmp_path, "x.csv", "same"), file(tmp_path, "y.csv", "same")
    assert digest(first) == digest(second) != digest(file(tmp_path, "z.csv", "other"))
    assert len(digest(first)) == 64


def test_hub_ids_and_stems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert is_hub_id("owner/name")
    assert is_hub_id("owner/name:config:test")
    assert not any(map(is_hub_id, ["name", "owner/x.csv", "here/name", "a/b/c", "owner/name:test"]))
    assert [stem("owner/name::test"), stem("here/x.y.csv")] == ["name", "x.y"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None, str]]:
    """A hub that holds one data set; what it was asked for is returned."""
    table = datasets.Dataset.from_dict(
        {"text": ["one ", "two"], "label": [1, -1], "other": [0, 0]},
        features=datasets.Features(
            text=datasets.Value("string"),
            label=datasets.ClassLabel(names=["no", "yes"]),
            other=datasets.Value("int64"),
        ),
    )
    asked: list[tuple[str, str | None, str]] = []

    def load(name: str, config: str | None, *, split: str) -> datasets.Dataset:
        asked.append((name, config, split))
        return table

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


def test_hub_rows(hub: list[tuple[str, str | None, str]]) -> None:
    assert [row.text for row in rows("owner/name")] == ["one", "two"]
    assert next(read_rows("owner/name:c:test", Columns(), is_pair=False, want_label=True)).label == "yes"
    assert "row 2: the label is missing" in complaint(labelled_yes_no, "owner/name::test")
    assert hub == [("owner/name", None, "train"), ("owner/name", "c", "test"), ("owner/name", None, "test")]


def labelled_yes_no(source: str) -> list[Row]:
    return rows(source, labels=["no", "yes"], want_label=True)


def test_hub_column_and_digest(hub: list[tuple[str, str | None, str]]) -> None:
    assert "only 'text', 'label', 'other'" in complaint(
        lambda source: rows(source, Columns(text="sentence")), "owner/name"
    )
    assert digest("owner/name") == digest("owner/name")


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach it\nand more")

    monkeypatch.setattr(datasets, "load_dataset", load)
    for read in (rows, digest):
        assert "download it and pass the file instead" in complaint(read, "owner/name")
