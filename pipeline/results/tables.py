"""Labels in a csv, tsv, jsonl or parquet file, which appears whole or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from listflow.data.errors import InputError
from listflow.data.files import replacing_shared
from listflow.data.shards import SHARDS, is_corpus
from listflow.data.values import harmless
from listflow.pipeline.storage.run_folder import is_run

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
LONGEST_HEADER = 10_000_000  # characters of a first line that names columns
Shape = tuple[str, ...]  # the names of the columns of a file


def write_tables(
    out: Path, source: str, tables: Iterable[pa.Table], replaces: Collection[Shape] = (), force: bool = False
) -> int:
    """All tables, made from ``source``, into ``out``, which appears whole or not at all; returns the row count.

    A file that is there is replaced where its columns are among ``replaces``, or by ``force``. InputError where it is
    not, and for another ending, a folder that is not there, and an ``out`` that is ``source`` or lies in a corpus or a
    run.
    """
    if out.suffix not in ENDINGS:
        raise InputError(f"{out}: predictions are written as .csv, .tsv, .jsonl or .parquet; choose one of these.")
    if not out.parent.is_dir():
        raise InputError(f"{out}: the folder {out.parent} does not exist; create it first.")
    _check_apart(out, source)
    if out.exists() and not (out.is_file() or out.is_dir()):
        raise InputError(f"{out}: is a pipe or a device, no file; choose another --output.")
    if not force:
        _check_replaced(out, replaces)
    count, writer = 0, None
    with replacing_shared(out) as aside:
        try:
            for table in tables:
                writer = writer or _writer(out.suffix, aside, table.schema)
                writer.write_table(table)
                count += table.num_rows
        finally:
            if writer is not None:
                writer.close()
    return count


def _check_apart(out: Path, source: str) -> None:
    same = out.exists() and Path(source).exists() and out.samefile(source)
    if same or (is_corpus(source) and out.resolve().is_relative_to(Path(source).resolve())):
        raise InputError(f"{out}: the labels would take the place of the texts in {source}; choose another --output.")
    for folder in out.resolve().parents:
        what = "corpus" if is_corpus(str(folder)) and (folder / SHARDS).is_dir() else "run" if is_run(folder) else ""
        if what:
            raise InputError(f"{out}: lies in the {what} {folder}; choose another --output.")


def _check_replaced(out: Path, replaces: Collection[Shape]) -> None:
    """Returns where nothing is lost if ``out`` is written: no file, an empty one, or one of these columns."""
    if out.is_dir():
        raise InputError(f"{out}: is a folder; choose another --output.")
    if out.exists() and out.stat().st_size and _shape(out) not in _as_written(replaces, out.suffix):
        raise InputError(
            f"{out}: exists, and is no earlier output of predict for this run; choose another --output, or give "
            "--force to replace it."
        )


def _as_written(shapes: Collection[Shape], suffix: str) -> set[Shape]:
    return {tuple(map(harmless, shape)) if suffix in {".csv", ".tsv"} else tuple(shape) for shape in shapes}


def _shape(path: Path) -> Shape:
    """The names of the columns of a file, as far as they can be read; nothing where they cannot."""
    try:
        if path.suffix == ".parquet":
            return tuple(pyarrow.parquet.read_schema(path).names)
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline(LONGEST_HEADER)
        if path.suffix == ".jsonl":
            return tuple(json.loads(line))
        return tuple(next(csv.reader([line], delimiter=_DELIMITERS[path.suffix]), []))
    except (OSError, ValueError, TypeError, csv.Error, pa.ArrowException):
        return ()


def _writer(suffix: str, path: Path, schema: pa.Schema) -> Any:
    if suffix == ".parquet":
        return pa.parquet.ParquetWriter(path, schema)
    if suffix == ".jsonl":
        return _JsonLines(path)
    return _Cells(path, schema, _DELIMITERS[suffix])


class _Cells:
    """csv or tsv with the interface of pyarrow's writers, and no cell that a spreadsheet would compute."""

    def __init__(self, path: Path, schema: pa.Schema, delimiter: str) -> None:
        self.schema = pa.schema([field.with_name(harmless(field.name)) for field in schema])
        self.file = pa.csv.CSVWriter(path, self.schema, write_options=pa.csv.WriteOptions(delimiter=delimiter))

    def write_table(self, table: pa.Table) -> None:
        columns = [_marked(column) if pa.types.is_string(column.type) else column for column in table.columns]
        self.file.write_table(pa.table(columns, self.schema))

    def close(self) -> None:
        self.file.close()


def _marked(column: pa.ChunkedArray) -> pa.Array:
    return pa.array([cell and harmless(cell) for cell in column.to_pylist()], pa.string())


class _JsonLines:
    """JSON lines with the interface of pyarrow's other writers."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8")

    def write_table(self, table: pa.Table) -> None:
        self.file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())

    def close(self) -> None:
        self.file.close()
