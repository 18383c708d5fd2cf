"""Separators, encodings, packed files and standard input; and rows of any format come back as they were written."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import tracemalloc
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from listflow.data import files
from listflow.data.errors import InputError
from listflow.data.formats import ending_of, is_hub_id
from listflow.data.rows import Row, digest, read_rows, stem
from listflow.data.task import Columns
from listflow.data.values import label_of, text_of

TWO = [Row("warm, and sunny", None, "good", 1), Row("rain; and wind", None, "bad", 2)]
LINES = [{"text": row.text, "label": row.label} for row in TWO]
JSONL = "".join(json.dumps(line) + "\n" for line in LINES)


def read(path: Path, columns: Columns | None = None) -> list[Row]:
    return list(read_rows(str(path), columns or Columns(), is_pair=False, want_label=True))


def refused(path: Path) -> str:
    with pytest.raises(InputError) as error:
        read(path)
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(path), "FILE")


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def table(delimiter: str, first: str = "") -> str:
    """``TWO`` as a spreadsheet writes it, with quotes where they are needed."""
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows([("text", "label"), *((row.text, row.label) for row in TWO)])
    return first + file.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["csv", "tsv"])
@pytest.mark.parametrize("first", ["", "sep={}\r\n", '"SEP={}"\n'])
def test_any_separator_is_read(tmp_path: Path, delimiter: str, ending: str, first: str) -> None:
    assert read(written(tmp_path / f"x.{ending}", table(delimiter, first.format(delimiter)))) == TWO


def test_a_separator_is_looked_for_where_the_usual_one_makes_no_such_column(tmp_path: Path) -> None:
    only = Columns()
    texts = written(tmp_path / "x.csv", "text\na;b\n1|2\n")
    assert [row.text for row in read_rows(str(texts), only, is_pair=False)] == ["a;b", "1|2"]
    texts = written(tmp_path / "y.csv", "id;text;when\n1;a, b;now\n")
    assert [row.text for row in read_rows(str(texts), only, is_pair=False)] == ["a, b"]
    said = refused(written(tmp_path / "z.csv", "Text;label\na;b\n"))
    assert said == "FILE: no column 'text' (did you mean 'Text'?), only 'Text', 'label'; say --columns text=NAME."
    said = refused(written(tmp_path / "w.csv", "text;label\na;b;c\n"))
    assert said == "FILE, row 1: has 3 fields where the header has 2; put quotes around texts with ';' in them."


@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson", "x.json", "x.JSON"])
@pytest.mark.parametrize(
    "content", [JSONL, json.dumps(LINES), json.dumps(LINES, indent=2), f"\ufeff\n {json.dumps(LINES)} \n"]
)
def test_json_of_lines_or_of_one_list(tmp_path: Path, name: str, content: str) -> None:
    assert read(written(tmp_path / name, content)) == TWO


ROW = '{"text": "a", "label": "b"}'
LIST = "; write one list of objects."
NO_END = f"FILE, row 2: is not valid JSON (a comma or the end of the list is missing){LIST}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f'[{ROW}, {{"text": ]', f"FILE, row 2: is not valid JSON (Expecting value){LIST}"),
        (f"[{ROW},]", f"FILE, row 2: is not valid JSON (Expecting value){LIST}"),
        (f"[{ROW} {{}}]", NO_END),
        (f"[{ROW}", NO_END),
        (f"[{ROW}] x", f"FILE, row 2: is not valid JSON (something follows the list){LIST}"),
        ('[["a", "b"]]', "FILE, row 1: is not a JSON object; write one object a line."),
        ("[]", "FILE: is empty; it needs at least one row of data."),
        ('[{"text": "a"}]', "FILE, row 1: no column 'label', only 'text'; say --columns label=NAME."),
        (
            '{"a":',
            "FILE, row 1: is not valid JSON (Expecting value: line 1 column 6 (char 5)); write one object a line.",
        ),
        (b'[{"text": "caf\xe9"}]', f"FILE, row 1: is not valid JSON (it is not UTF-8){LIST}"),
        ("[" * 200_000, f"FILE, row 1: is not valid JSON (maximum recursion depth exceeded){LIST}"),
    ],
)
def test_json_that_is_no_list_of_objects(tmp_path: Path, content: str | bytes, said: str) -> None:
    assert (
        refused(written(tmp_path / "x.json", content)).replace(" while decoding a JSON array from a unicode string", "")
        == said
    )


TWICE = ['{"text": "a", "label": "b"}', '{"text": "c", "more": {"x": 1, "x": 2}, "label": "d", "text": "e"}']


@pytest.mark.parametrize("content", ["\n".join(TWICE), f"[{', '.join(TWICE)}]"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.ndjson"])
def test_a_key_that_is_there_twice_in_a_row_of_json(tmp_path: Path, name: str, content: str) -> None:
    """As in a header of csv: it matters where it is one that is read."""
    path = written(tmp_path / name, content)
    assert refused(path) == "FILE, row 2: column 'text' occurs twice; rename one of them."
    assert [row.text for row in read_rows(str(path), Columns(text="label", label="x"), is_pair=False)] == ["b", "d"]
    inside = written(tmp_path / name, '{"text": {"a": 1, "a": 2}, "label": "b"}')
    assert refused(inside) == "FILE, row 1: column 'text' holds a JSONObject; it must hold text."


@pytest.mark.parametrize("name", ["x.csv.gz", "x.jsonl.gz", "x.json.gz", "x.TSV.GZ", "x.csv"])
def test_packed_files_are_unpacked_on_the_way(tmp_path: Path, name: str) -> None:
    content = JSONL if "json" in name else table("\t" if "TSV" in name else ",")
    path = written(tmp_path / name, gzip.compress(content.encode()))
    assert read(path) == TWO
    assert stem(str(path)) == "x"
    assert len(digest(str(path))) == 64


def test_a_packed_file_that_is_cut_short(tmp_path: Path) -> None:
    whole = gzip.compress(os.urandom(1000).hex().encode() * 100)
    said = refused(written(tmp_path / "x.csv.gz", whole[:500]))
    assert said.startswith("FILE: is damaged gzip (Compressed file ended before ")
    assert said.endswith("; write it anew.")


def test_endings() -> None:
    assert [ending_of(name) for name in ("a.csv", "a.CSV.gz", "a.ndjson.gz", "a.parquet")] == [
        ".csv", ".csv", ".ndjson", ".parquet",
    ]  # fmt: skip
    assert not any(map(ending_of, ["a", "a.gz", "a.txt", "a.parquet.gz", "csv", "a.xlsx"]))
    assert not any(map(is_hub_id, ["owner/x.csv.gz", "owner/x.ndjson", "owner/x.json", "-"]))


@pytest.mark.parametrize(
    ("content", "coding"),
    [
        ("café", "latin1"), ("it’s “fine”", "cp1252"), ("café\nlater a – dash", "cp1252"), ("7 €", "cp1252"),
    ],
)  # fmt: skip
def test_the_encoding_is_named(tmp_path: Path, content: str, coding: str) -> None:
    coded = f"text,label\n{content}\n".encode(coding)
    said = refused(written(tmp_path / "x.csv", coded))
    assert said == f"FILE, line 2: is not UTF-8; run `iconv -f {coding} -t utf-8 FILE > fixed.csv`."
    said = refused(written(tmp_path / "x.csv.gz", gzip.compress(coded)))
    assert said == f"FILE, line 2: is not UTF-8; run `zcat FILE | iconv -f {coding} -t utf-8 > fixed.csv`."


@pytest.mark.parametrize("coding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "cp1252"])
def test_the_command_that_is_named_makes_a_file_that_is_read(tmp_path: Path, coding: str) -> None:
    mark = "" if coding == "cp1252" else "\ufeff"
    path = written(tmp_path / "x.csv", f"{mark}text,label\nit’s 7 €,a\n".encode(coding))
    command = refused(path).split("`")[1].replace("FILE", str(path))
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert read(tmp_path / "fixed.csv") == [Row("it’s 7 €", None, "a", 1)]


@pytest.mark.parametrize(("lines", "row"), [("text,label\ra,b\r", 1), ("text,label\r\na,b\r\nc,d\re,f\n", 2)])
def test_lines_that_end_as_no_other_format_ends_them(tmp_path: Path, lines: str, row: int) -> None:
    said = refused(written(tmp_path / "x.csv", lines))
    assert said.startswith(f"FILE, row {row}: is not valid csv (new-line character ")
    assert said.endswith(r"; end its lines with line feeds, as `tr '\r' '\n'` does, or pass jsonl.")


def test_blank_lines_before_a_header_are_passed_over(tmp_path: Path) -> None:
    for first in ("\n", "\r\n \r\n", "\ufeff\n"):
        assert read(written(tmp_path / "x.csv", table(";", first))) == TWO
    assert refused(written(tmp_path / "x.csv", "\n\n")) == "FILE: is empty; it needs at least one row of data."


def test_a_name_that_can_be_no_path(tmp_path: Path) -> None:
    for name in ("x" * 5000 + ".csv", "x\0.csv"):
        assert refused(tmp_path / name).startswith("FILE: no such file; check the path, or name a hub data set")


def test_a_text_of_a_parquet_file_that_is_no_text(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(LINES), tmp_path / "x.parquet", compression="none", use_dictionary=False)
    content = (tmp_path / "x.parquet").read_bytes().replace(b"warm", b"wa\x87m")
    said = refused(written(tmp_path / "x.parquet", content))
    assert said.startswith("FILE: is not readable parquet ('utf-8' codec can't decode byte 0x87")
    assert said.endswith("; write it anew.")


def test_what_cp1252_does_not_have_is_not_called_so(tmp_path: Path) -> None:
    said = refused(written(tmp_path / "x.csv", b"text,label\n\x8f\x93,a\n"))
    assert said == (
        "FILE, line 2: is not UTF-8; save it as UTF-8, or convert it with iconv from the encoding that it has."
    )


def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.csv")
    (tmp_path / "y.csv").symlink_to("/dev/zero")
    for name in ("x.csv", "y.csv"):
        for look in (read, lambda path: digest(str(path))):
            with pytest.raises(InputError, match=r"csv: is a pipe or a device, no file; save what it gives to a file"):
                look(tmp_path / name)


def from_stdin(content: bytes, monkeypatch: pytest.MonkeyPatch) -> list[Row] | str:
    """What standard input is read as, twice and with its digest, as if it were that of a new process."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    files._standard_input.cache_clear()
    try:
        first, second = (list(read_rows("-", Columns(), is_pair=False, want_label=True)) for _ in range(2))
    except InputError as error:
        return str(error)
    assert len(digest("-")) == 64
    assert first == second
    return first


def as_parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(LINES), file)
    return file.getvalue()


def test_standard_input_is_read_by_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [JSONL.encode(), table("\t").encode(), gzip.compress(json.dumps(LINES).encode()), as_parquet()]
    assert [from_stdin(content, monkeypatch) for content in contents] == [TWO] * 4
    said = "standard input: is empty; it needs at least one row of data."
    assert from_stdin(b"", monkeypatch) == said
    said = "standard input, line 2: is not UTF-8; put `iconv -f cp1252 -t utf-8` before it."
    assert from_stdin("text,label\n7 €,a\n".encode("cp1252"), monkeypatch) == said
    said = "standard input, row 1: the text is blank; fill it in or delete the row."
    assert from_stdin(b"text,label\n,a\n", monkeypatch) == said


def test_standard_input_of_a_process(tmp_path: Path) -> None:
    script = "from listflow.data.rows import *; print([r.text for r in read_rows('-', Columns(), is_pair=False)])"
    done = subprocess.run(
        [sys.executable, "-c", script], input=b"text\na\n", capture_output=True, check=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout == b"['a']\n"
    assert not list(tmp_path.iterdir()), "what was kept of it goes with the process"


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.json", "x.jsonl"])
def test_memory_does_not_grow_with_a_file(tmp_path: Path, name: str) -> None:
    """10 MB; the list is on one line."""
    rows = ({"text": f"{i} " + "word " * 1000, "label": "a"} for i in range(2_000))
    if name.endswith("json"):
        content = json.dumps(list(rows))
    elif name.endswith("jsonl"):
        content = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        content = "text,label\n" + "".join(f"{row['text']},a\n" for row in rows)
    path = written(tmp_path / name, gzip.compress(content.encode(), 1) if name.endswith("gz") else content)
    tracemalloc.start()
    count = sum(1 for _ in read_rows(str(path), Columns(), is_pair=False, want_label=True))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2_000
    assert most < 2e6


@pytest.mark.parametrize("asked", ["NFC", "NFD"])
@pytest.mark.parametrize("there", ["NFC", "NFD"])
def test_a_column_is_found_in_any_spelling(tmp_path: Path, asked: str, there: str) -> None:
    name = unicodedata.normalize(there, "sujét")
    columns = Columns(text=unicodedata.normalize(asked, "sujét"))
    pq.write_table(pa.table({name: ["a"], "label": ["b"]}), tmp_path / "x.parquet")
    written(tmp_path / "x.csv", f"{name};label\na;b\n")
    written(tmp_path / "x.jsonl", json.dumps({name: "a", "label": "b"}))
    for ending in ("parquet", "csv", "jsonl"):
        assert read(tmp_path / f"x.{ending}", columns) == [Row("a", None, "b", 1)]


def write_table(path: Path, rows: list[dict[str, object]], delimiter: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"], delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


WRITERS: dict[str, Callable[[Path, list[dict[str, object]]], None]] = {
    "comma.csv": lambda path, rows: write_table(path, rows, ","),
    "semicolon.csv": lambda path, rows: write_table(path, rows, ";"),
    "tab.csv": lambda path, rows: write_table(path, rows, "\t"),
    "x.tsv": lambda path, rows: write_table(path, rows, "\t"),
    "x.jsonl": write_lines,
    "x.ndjson": write_lines,
    "list.json": lambda path, rows: (
        path.write_text(json.dumps(rows, ensure_ascii=len(rows) % 2 == 0), "utf-8") and None
    ),
    "x.jsonl.gz": lambda path, rows: (
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())) and None
    ),
    "x.parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path),
}

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
WORDS = st.text(CHARACTERS | st.sampled_from(",;\t|\"'\n\r=[]{}\\: é\u2028\u0085"), max_size=12)
CELLS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5)
MIXED = st.lists(
    st.tuples(
        WORDS | st.integers() | st.none(),
        WORDS | st.booleans() | st.integers(-3, 3) | st.floats(width=32) | st.none() | st.just(float("nan")),
    ),
    min_size=1,
    max_size=5,
)  # fmt: skip
PROPERTY = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def outcome(path: Path) -> list[tuple[str, str | None, int]] | str:
    """(text, label, number) of all rows, or the sentence that refuses them."""
    try:
        return [(row.text, row.label, row.number) for row in read(path)]
    except InputError as error:
        return str(error)


def expected(path: Path, rows: list[dict[str, object]]) -> list[tuple[str, str | None, int]] | str:
    """Every row as it was; or the first one without a text or a label, with its place and a remedy."""
    found: list[tuple[str, str | None, int]] = []
    for number, row in enumerate(rows, 1):
        text, label = text_of("", row["text"]), label_of("", row["label"])
        if not text:
            return f"{path}, row {number}: the text is blank; fill it in or delete the row."
        if not label:
            return f"{path}, row {number}: the label is missing; fill in column 'label' or delete the row."
        found.append((text, label, number))
    return found


@pytest.mark.parametrize("name", WRITERS)
@PROPERTY
@given(cells=CELLS)
@example(cells=[("sep=;", "a"), ("text", "label")])
def test_texts_come_back_from_any_format(name: str, cells: list[tuple[str, str]], tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": text, "label": label} for text, label in cells]
    WRITERS[name](tmp_path / name, rows)
    assert outcome(tmp_path / name) == expected(tmp_path / name, rows)


@pytest.mark.parametrize("name", ["x.jsonl", "list.json"])
@PROPERTY
@given(cells=MIXED)
def test_values_come_back_from_json(name: str, cells: list[tuple[object, object]], tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": text, "label": label} for text, label in cells]
    WRITERS[name](tmp_path / name, rows)
    assert outcome(tmp_path / name) == expected(tmp_path / name, rows)


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl", "x.json", "x.csv.gz", "x.parquet"])
@PROPERTY
@given(content=st.binary(max_size=40) | st.text(st.sampled_from('text,label;\t\n"{}[]:a'), max_size=40).map(str.encode))
@example(content=b"\x1f\x8b")
@example(content=b"\xff\xfet\x00")
@example(content=b"PAR1")
def test_any_bytes_are_read_or_refused_in_a_sentence(name: str, content: bytes, tmp_path: Path) -> None:
    path = written(tmp_path / name, content)
    found = outcome(path)
    if isinstance(found, str):
        assert found.startswith(str(path))
        assert "\n" not in found
        assert ";" in found
    else:
        assert all(text and label for text, label, _ in found)
