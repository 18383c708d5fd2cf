"""Rows from csv, tsv, jsonl, parquet or a hub data set, one at a time: no file is ever held whole."""

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import InputError, did_you_mean
from data.task import Columns

Record = Mapping[str, Any]
HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[^:/]*):(?P<split>[^:/]+))?")
LONGEST_FIELD = 2**31 - 1
READ_AT_ONCE = 1024  # rows of a columnar source in memory at a time


@dataclass(frozen=True)
class Row:
    """One row, texts stripped at both ends; `number` counts data rows from 1, `task` is read where asked for."""

    text: str
    pair: str | None
    label: str | None
    number: int
    task: str | None = None


def read_rows(
    source: str,
    columns: Columns,
    *,
    is_pair: bool,
    labels: Sequence[str] | None = None,
    want_label: bool = False,
    task_column: str | None = None,
) -> Iterator[Row]:
    """Yield the rows of a file (csv, tsv, jsonl, parquet) or hub data set (`owner/name[:config:split]`).

    With `want_label` every row must have a text and a label, one of `labels` if these are given; without
    it labels are not read and blank texts are left to the caller. `task_column` is where rows name their task.
    Raises InputError as soon as it meets a source, column or row that it cannot use.
    """
    parts = ("text_a", "text_b") if is_pair else ("text",)
    names = [getattr(columns, part) for part in parts]
    keys = {name: f"columns {part}=" for name, part in zip(names, parts, strict=True)}
    keys |= {columns.label: "columns label="} if want_label else {}
    keys |= {task_column: "task-column "} if task_column else {}
    number = 0
    for number, record in enumerate(_records(source, keys), 1):
        where = f"{source}, row {number}"
        text, *pair = (_cell(where, name, record[name]) for name in names)
        label = None
        if want_label:
            if not text or "" in pair:
                raise InputError(f"{where}: the text is blank; fill it in or delete the row.")
            label = _label(where, columns.label, record[columns.label], labels)
        task = _cell(where, task_column, record[task_column]) if task_column else None
        yield Row(text, pair[0] if pair else None, label, number, task)
    if not number:
        raise InputError(f"{source}: is empty; it needs at least one row of data.")


def digest(source: str | Path) -> str:
    """Return the sha256 of a file's bytes in hex, or a hub data set's own fingerprint. Raises InputError."""
    if not is_hub_id(str(source)):
        with _open(str(source)) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return f"hub:{_load_hub(str(source))._fingerprint}"


def is_hub_id(source: str) -> bool:
    """Whether a source names a hub data set: shaped like an id, no known file ending, no such folder."""
    path = Path(source)
    return bool(HUB_ID.fullmatch(source)) and path.suffix.lower() not in READERS and not path.parent.exists()


def stem(source: str) -> str:
    """Return the short name of a source: the file name without its ending, the data set without its owner."""
    match = HUB_ID.fullmatch(source) if is_hub_id(source) else None
    return match["name"].rpartition("/")[2] if match else Path(source).stem


def _records(source: str, keys: Mapping[str, str]) -> Iterator[Record]:
    if is_hub_id(source):
        return _hub_records(source, keys)
    suffix = Path(source).suffix.lower()
    if suffix not in READERS:
        _open(source).close()  # a missing file is the better complaint
        raise InputError(f"{source}: has no ending that can be read; convert it to {', '.join(READERS)}.")
    return READERS[suffix](source, keys)


def _open(source: str) -> BufferedReader:
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


def _lines(source: str) -> Iterator[str]:
    """Decode line by line, so that a bad byte is reported with its line and not with its buffer."""
    with _open(source) as file:
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
    with _open(source) as file:
        try:
            table = pq.ParquetFile(file)
            _check_columns(source, keys, table.schema_arrow.names)
            for batch in table.iter_batches(batch_size=READ_AT_ONCE, columns=list(keys)):
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            reason = _first_line(error)
            raise InputError(f"{source}: is not readable parquet ({reason}); write it anew.") from error


def _hub_records(source: str, keys: Mapping[str, str]) -> Iterator[Record]:
    table = _load_hub(source)
    _check_columns(source, keys, table.column_names)
    names = {name: feature.names for name, feature in table.features.items() if hasattr(feature, "names")}
    for batch in table.select_columns(list(keys)).iter(READ_AT_ONCE):
        for cells in zip(*(batch[name] for name in keys), strict=True):
            yield {name: _class_name(names.get(name), cell) for name, cell in zip(keys, cells, strict=True)}


def _load_hub(source: str) -> Any:
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
    found = list(found)
    for name, option in keys.items():
        if found.count(name) > 1:
            raise InputError(f"{where}: column {name!r} occurs twice; rename one of them.")
        if name not in found:
            listed = ", ".join(repr(column) for column in found) or "none"
            hint = did_you_mean(name, found)
            raise InputError(f"{where}: no column {name!r}{hint}, only {listed}; say --{option}NAME.")


def _cell(where: str, name: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        raise InputError(f"{where}: column {name!r} holds a {type(value).__name__}; it must hold text.")
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: column {name!r} holds half a character; write it as UTF-8.") from error
    return text


def _label(where: str, name: str, value: Any, labels: Sequence[str] | None) -> str:
    label = _cell(where, name, value)
    if not label:
        raise InputError(f"{where}: the label is missing; fill in column {name!r} or delete the row.")
    if labels is not None and label not in labels:
        hint = did_you_mean(label, labels)
        raise InputError(f"{where}: unknown label {label!r}{hint}; the task has {', '.join(labels)}.")
    return label


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


READERS = {".csv": _csv_records, ".tsv": _tsv_records, ".jsonl": _jsonl_records, ".parquet": _parquet_records}
