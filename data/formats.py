"""What files and hub data sets hold, record by record: csv, tsv, jsonl, json, parquet; no file is ever held whole.

A record maps columns to whatever the format has there; ``rows.py`` makes texts and labels of them. Text files may be
packed with gzip, and come on standard input (``-``), which is kept in a file aside as it can be read once only.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from listflow.data.errors import InputError, did_you_mean
from listflow.data.files import BYTES_AT_ONCE, STDIN, decoded, open_source, shown, text_lines, unpacked
from listflow.data.values import normal

Record = Mapping[str, Any]  # column to cell
HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[^:/]*):(?P<split>[^:/]+))?")
LONGEST_FIELD = 2**31 - 1
LONGEST_ITEM = 2**26  # characters of an item of a JSON list
READ_AT_ONCE = 1024  # rows of a columnar source in memory at a time
SEPARATORS = ",;\t|"
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # a spreadsheet's own first line
_BLANK = re.compile(r"[ \t\r\n]*")
_LINES = r"end its lines with line feeds, as `tr '\r' '\n'` does, or pass jsonl"


def is_hub_id(source: str) -> bool:
    """Whether a source names a hub data set: shaped like an id, no known file ending, no such folder."""
    return bool(HUB_ID.fullmatch(source)) and not ending_of(source) and not Path(source).parent.exists()


def ending_of(source: str) -> str:
    """The ending that says how a source is read, such as ``.csv``; empty for one that says nothing."""
    if source == STDIN:
        return _ending_by_content(source)
    path = Path(source)
    suffix = path.suffix.lower()
    inner = Path(path.stem).suffix.lower() if suffix == ".gz" else suffix
    return inner if inner in READERS and (inner == suffix or inner != ".parquet") else ""


def records_of(source: str, keys: Mapping[str, str]) -> Iterator[Record]:
    """The records of a source, each with at least the columns ``keys``, which maps them to the option that names them.

    Raises InputError as soon as it meets a source or record that it cannot use.
    """
    if is_hub_id(source):
        return _hub_records(source, keys)
    ending = ending_of(source)
    if not ending:
        open_source(source).close()  # a missing file is the better complaint
        raise InputError(f"{source}: has no ending that can be read; convert it to {', '.join(READERS)}.")
    return READERS[ending](source, keys)


def _ending_by_content(source: str) -> str:
    with unpacked(source) as file:
        first = file.read(BYTES_AT_ONCE)
    if first.startswith(b"PAR1"):
        return ".parquet"
    return ".json" if _text_of_first(first)[:1] in (b"{", b"[") else ".csv"


def _text_of_first(first: bytes) -> bytes:
    return first.removeprefix(codecs.BOM_UTF8).lstrip()


def _csv_records(source: str, keys: Mapping[str, str], delimiter: str = ",") -> Iterator[Record]:
    csv.field_size_limit(LONGEST_FIELD)
    number, where = 0, shown(source)
    try:
        delimiter, lines = _separated(text_lines(source), keys, delimiter)
        # strict: a stray quote is an error, where the default would silently swallow the rows up to the next one.
        table = csv.reader(lines, delimiter=delimiter, strict=True)
        header = [name.strip() for name in next(table, [])]
        if header:
            places = _check_columns(where, keys, header)
            wanted = {place: name for name, place in places.items()}
            header = [wanted.get(name, name) for name in header]
        for cells in table:
            if not cells and len(header) > 1:
                continue
            number += 1
            cells = cells or [""]
            if len(cells) != len(header):
                sizes = f"has {len(cells)} fields where the header has {len(header)}"
                raise InputError(f"{where}, row {number}: {sizes}; put quotes around texts with {delimiter!r} in them.")
            yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        remedy = _LINES if "new-line" in str(error) else "double the quotes inside a quoted field, or pass jsonl"
        raise InputError(f"{where}, row {number + 1}: is not valid csv ({error}); {remedy}.") from error


def _separated(lines: Iterator[str], keys: Iterable[str], usual: str) -> tuple[str, Iterator[str]]:
    """(what stands between cells, the lines from the header on).

    It is what a line ``sep=;`` names, or else what makes the columns ``keys`` of the header; the usual one if it does.
    """
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        return usual, lines
    if named := _SEPARATOR_LINE.fullmatch(first):
        return named[1], lines

    def fit(delimiter: str) -> tuple[int, bool]:
        header = [normal(cell.strip()) for cell in next(csv.reader([first], delimiter=delimiter), [])]
        return sum(normal(name) in header for name in keys), len(header) > 1

    return max((usual, *SEPARATORS), key=fit), chain([first], lines)


class JSONObject(dict[str, Any]):
    """A JSON object; ``names`` has every name as often as it is there, where a dict keeps the last of its values."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.names = [name for name, _ in pairs]


def _json_records(source: str, keys: Mapping[str, str]) -> Iterator[Record]:
    with unpacked(source) as file:
        is_list = _text_of_first(file.peek(BYTES_AT_ONCE)).startswith(b"[")
        for where, record in (_items if is_list else _objects)(source, file):
            if not isinstance(record, JSONObject):
                raise InputError(f"{where}: is not a JSON object; write one object a line.")
            places = _check_columns(where, keys, record.names)
            yield {name: record[place] for name, place in places.items()}


def _objects(source: str, file: BufferedReader) -> Iterator[tuple[str, Any]]:
    """(where it is, the value) of every line that is not blank."""
    filled = (line for line in decoded(source, file) if not line.isspace())
    for number, line in enumerate(filled, 1):
        where = f"{shown(source)}, row {number}"
        try:
            yield where, json.loads(line, object_pairs_hook=JSONObject)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: is not valid JSON ({error}); write one object a line.") from error


def _items(source: str, file: BufferedReader) -> Iterator[tuple[str, Any]]:
    """(where it is, the value) of every item of a file that is one JSON list."""
    for number, value in enumerate(_Growing(file).items(), 1):
        where = f"{shown(source)}, row {number}"
        if isinstance(value, ValueError | RecursionError):
            raise InputError(f"{where}: is not valid JSON ({value}); write one list of objects.") from value
        yield where, value


class _Growing:
    """A JSON list of which as much is in memory as its next value needs."""

    def __init__(self, file: BufferedReader) -> None:
        self._pieces = codecs.iterdecode(iter(lambda: file.read(BYTES_AT_ONCE), b""), "utf-8-sig")
        self._text, self._at = "", 0
        self._decode = json.JSONDecoder(object_pairs_hook=JSONObject).raw_decode

    def items(self) -> Iterator[Any]:
        """The values of the list; what is no JSON ends it with the error as the last value."""
        try:
            self._take("[")
            separated = False
            while separated or self._sign() != "]":
                yield self._value()
                if separated := self._sign() == ",":
                    self._take(",")
                elif self._sign() != "]":
                    raise ValueError("a comma or the end of the list is missing")
            self._take("]")
            if self._sign():
                raise ValueError("something follows the list")
        except UnicodeDecodeError:
            yield ValueError("it is not UTF-8")
        except (ValueError, RecursionError) as error:
            yield error

    def _sign(self) -> str:
        """The next character that is not blank; none at the end."""
        self._at = _end_of_blank(self._text, self._at)
        while self._at == len(self._text) and self._grow(1):
            self._at = _end_of_blank(self._text, self._at)
        return self._text[self._at : self._at + 1]

    def _take(self, sign: str) -> None:
        """Passes over ``sign``."""
        if self._sign() != sign:
            raise ValueError(f"{sign!r} is missing")
        self._at += 1

    def _value(self) -> Any:
        """The next value, passed over."""
        self._sign()
        while True:
            try:
                value, self._at = self._decode(self._text, self._at)
                return value
            except json.JSONDecodeError as error:
                held = len(self._text) - self._at
                if held > LONGEST_ITEM or not self._grow(held):
                    raise ValueError(error.msg) from error

    def _grow(self, least: int) -> bool:
        """Whether there was more: ``least`` characters of it, or all."""
        rest, more = self._text[self._at :], list[str]()
        while sum(map(len, more)) < least and (piece := next(self._pieces, None)) is not None:
            more.append(piece)
        self._text, self._at = rest + "".join(more), 0
        return bool(more)


def _end_of_blank(text: str, start: int) -> int:
    match = _BLANK.match(text, start)
    assert match is not None
    return match.end()


def _parquet_records(source: str, keys: Mapping[str, str]) -> Iterator[Record]:
    with open_source(source) as file:
        try:
            table = pq.ParquetFile(file)
            places = _check_columns(shown(source), keys, table.schema_arrow.names)
            for batch in table.iter_batches(batch_size=READ_AT_ONCE, columns=list(places.values())):
                for record in batch.to_pylist():
                    yield {name: record[place] for name, place in places.items()}
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = _first_line(error)
            raise InputError(f"{shown(source)}: is not readable parquet ({reason}); write it anew.") from error


def _hub_records(source: str, keys: Mapping[str, str]) -> Iterator[Record]:
    table = load_hub(source)
    places = _check_columns(source, keys, table.column_names)
    names = {name: feature.names for name, feature in table.features.items() if hasattr(feature, "names")}
    for batch in table.select_columns(list(places.values())).iter(READ_AT_ONCE):
        for cells in zip(*(batch[place] for place in places.values()), strict=True):
            found = zip(places.items(), cells, strict=True)
            yield {name: _class_name(names.get(place), cell) for (name, place), cell in found}


def load_hub(source: str) -> Any:
    """The hub data set that ``source`` names; InputError where it is out of reach."""
    import datasets  # slow to import, and needed only here

    match = HUB_ID.fullmatch(source)
    assert match is not None
    try:
        return datasets.load_dataset(match["name"], match["config"] or None, split=match["split"] or "train")
    except Exception as error:  # the hub's client raises errors of half a dozen libraries
        reason = f"no such file, and no such data set within reach of the hub ({_first_line(error)})"
        raise InputError(f"{source}: {reason}; download it and pass the file instead.") from error


def _class_name(names: Sequence[str] | None, cell: Any) -> Any:
    """Hub data sets store a class as its index, and a hidden label as -1."""
    if names is None or not isinstance(cell, int):
        return cell
    return names[cell] if cell >= 0 else None


def _check_columns(where: str, keys: Mapping[str, str], found: Iterable[str]) -> dict[str, str]:
    """What each column that is asked for is called there: the same in any Unicode spelling. InputError for one that is
    missing or occurs twice."""
    found = list(found)
    places = {}
    for name, option in keys.items():
        there = [column for column in found if column == name] or [c for c in found if normal(c) == normal(name)]
        if len(there) > 1:
            raise InputError(f"{where}: column {name!r} occurs twice; rename one of them.")
        if not there:
            listed = ", ".join(repr(column) for column in found) or "none"
            hint = did_you_mean(name, found)
            remedy = f"say --{option}NAME" if option else "add it"
            if option.endswith("text=") and {"text_a", "text_b"} <= set(found):
                hint, remedy = "", "pairs of texts need a task with {text_a} and {text_b}, or for `ingest` --pairs"
            raise InputError(f"{where}: no column {name!r}{hint}, only {listed}; {remedy}.")
        places[name] = there[0]
    return places


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


# By file ending; each takes the source and the columns that it must have.
READERS: dict[str, Callable[..., Iterator[Record]]] = {
    ".csv": _csv_records, ".tsv": partial(_csv_records, delimiter="\t"), ".jsonl": _json_records,
    ".ndjson": _json_records, ".json": _json_records, ".parquet": _parquet_records,
}  # fmt: skip
