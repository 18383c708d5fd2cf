"""What files and hub data sets hold, record by record: csv, tsv, jsonl, parquet; no file is ever held whole.

A record maps columns to whatever the format has there; ``rows.py`` makes texts and labels of them.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from listflow.data.errors import InputError, did_you_mean

Record = Mapping[str, Any]  # column to cell
HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[^:/]*):(?P<split>[^:/]+))?")
LONGEST_FIELD = 2**31 - 1
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet may compute
NUMBER = re.compile(r"[+-]?[0-9]+([.][0-9]+)?")
READ_AT_ONCE = 1024  # rows of a columnar source in memory at a time


def is_hub_id(source: str) -> bool:
    """Whether a source names a hub data set: shaped like an id, no known file ending, no such folder."""
    path = Path(source)
    return bool(HUB_ID.fullmatch(source)) and path.suffix.lower() not in READERS and not path.parent.exists()


def records_of(source: str, keys: Mapping[str, str]) -> Iterator[Record]:
    """The records of a source, each with at least the columns ``keys``, which maps them to the option that names them.

    Raises InputError as soon as it meets a source or record that it cannot use.
    """
    if is_hub_id(source):
        return _hub_records(source, keys)
    suffix = Path(source).suffix.lower()
    if suffix not in READERS:
        open_source(source).close()  # a missing file is the better complaint
        raise InputError(f"{source}: has no ending that can be read; convert it to {', '.join(READERS)}.")
    return READERS[suffix](source, keys)


def open_source(source: str) -> BufferedReader:
    """The file, open for its bytes; InputError where there is none."""
    path = Path(source)
    if path.is_dir():
        raise InputError(f"{source}: is a folder; pass a file in it.")
    if not path.exists():
        folder = path.parent
        known = [item.name for item in folder.iterdir() if item.is_file()] if folder.is_dir() else []
        hint = did_you_mean(path.name, known)
        remedy = "check the path, or name a hub data set as owner/name or owner/name:config:split"
        raise InputError(f"{source}: no such file{hint}; {remedy}.")
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{source}: cannot be opened ({error.strerror}); check its permissions.") from error


def harmless(cell: str) -> str:
    """``cell`` of a csv or tsv file, marked as text by an apostrophe where a spreadsheet would read a formula."""
    return f"'{cell}" if cell.startswith(FORMULA) and not NUMBER.fullmatch(cell) else cell


def unmarked(cell: str, known: Container[str]) -> str:
    """``cell`` without the mark of ``harmless``, where it is one of the ``known`` only so."""
    return cell.removeprefix("'") if cell not in known and cell.removeprefix("'") in known else cell


def _lines(source: str) -> Iterator[str]:
    """The lines of a text file, decoded one by one: a bad byte is reported with its line and not with its buffer."""
    with open_source(source) as file:
        for number, raw in enumerate(file, 1):
            try:
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                coding = "utf-16" if number == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin1"
                remedy = f"`iconv -f {coding} -t utf-8 {source} > fixed{Path(source).suffix}`"
                raise InputError(f"{source}, line {number}: is not UTF-8; run {remedy}.") from error


def _csv_records(source: str, keys: Mapping[str, str], delimiter: str = ",") -> Iterator[Record]:
    csv.field_size_limit(LONGEST_FIELD)
    # strict: a stray quote is an error, where the default would silently swallow the rows up to the next one.
    table = csv.reader(_lines(source), delimiter=delimiter, strict=True)
    number = 0
    try:
        header = [name.strip() for name in next(table, [])]
        if header:
            _check_columns(source, keys, header)
        for cells in table:
            if not cells and len(header) > 1:
                continue
            number += 1
            cells = cells or [""]
            if len(cells) != len(header):
                counts = f"has {len(cells)} fields where the header has {len(header)}"
                remedy = f"put quotes around texts with {delimiter!r} in them"
                raise InputError(f"{source}, row {number}: {counts}; {remedy}.")
            yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        remedy = "double the quotes inside a quoted field, or pass jsonl"
        raise InputError(f"{source}, row {number + 1}: is not valid csv ({error}); {remedy}.") from error


def _tsv_records(source: str, keys: Mapping[str, str]) -> Iterator[Record]:
    return _csv_records(source, keys, delimiter="\t")


def _jsonl_records(source: str, keys: Mapping[str, str]) -> Iterator[Record]:
    filled = (line for line in _lines(source) if not line.isspace())
    for number, line in enumerate(filled, 1):
        where = f"{source}, row {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: is not valid JSON ({error}); write one object a line.") from error
        if not isinstance(record, dict):
            raise InputError(f"{where}: is not a JSON object; write one object a line.")
        _check_columns(where, keys, record)
        yield record


def _parquet_records(source: str, keys: Mapping[str, str]) -> Iterator[Record]:
    with open_source(source) as file:
        try:
            table = pq.ParquetFile(file)
            _check_columns(source, keys, table.schema_arrow.names)
            for batch in table.iter_batches(batch_size=READ_AT_ONCE, columns=list(keys)):
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            reason = _first_line(error)
            raise InputError(f"{source}: is not readable parquet ({reason}); write it anew.") from error


def _hub_records(source: str, keys: Mapping[str, str]) -> Iterator[Record]:
    table = load_hub(source)
    _check_columns(source, keys, table.column_names)
    names = {name: feature.names for name, feature in table.features.items() if hasattr(feature, "names")}
    for batch in table.select_columns(list(keys)).iter(READ_AT_ONCE):
        for cells in zip(*(batch[name] for name in keys), strict=True):
            yield {name: _class_name(names.get(name), cell) for name, cell in zip(keys, cells, strict=True)}


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


def _check_columns(where: str, keys: Mapping[str, str], found: Iterable[str]) -> None:
    """Returns when every column that is asked for is found once; InputError otherwise."""
    found = list(found)
    for name, option in keys.items():
        if found.count(name) > 1:
            raise InputError(f"{where}: column {name!r} occurs twice; rename one of them.")
        if name not in found:
            listed = ", ".join(repr(column) for column in found) or "none"
            hint = did_you_mean(name, found)
            remedy = f"say --{option}NAME" if option else "add it"
            if option.endswith("text=") and {"text_a", "text_b"} <= set(found):
                hint, remedy = "", "pairs of texts need a task with {text_a} and {text_b}, or for `ingest` --pairs"
            raise InputError(f"{where}: no column {name!r}{hint}, only {listed}; {remedy}.")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


# By file ending; each takes the source and the columns that it must have.
READERS = {".csv": _csv_records, ".tsv": _tsv_records, ".jsonl": _jsonl_records, ".parquet": _parquet_records}
