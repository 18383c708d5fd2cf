"""Labels in a csv, tsv, jsonl or parquet file, which appears whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from listflow.data.errors import InputError
from listflow.data.files import replacing
from listflow.data.shards import is_corpus


def write_tables(out: Path, source: str, tables: Iterable[pa.Table]) -> int:
    """All tables, made from ``source``, into ``out``, which appears whole or not at all; returns the row count.

    InputError for another ending, a folder that is not there, or an ``out`` that is ``source`` or lies in its corpus.
    """
    if out.suffix not in {".csv", ".tsv", ".jsonl", ".parquet"}:
        raise InputError(f"{out}: predictions are written as .csv, .tsv, .jsonl or .parquet; choose one of these.")
    if not out.parent.is_dir():
        raise InputError(f"{out}: the folder {out.parent} does not exist; create it first.")
    _check_apart(out, source)
    count, writer = 0, None
    with replacing(out) as aside:
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


def _writer(suffix: str, path: Path, schema: pa.Schema) -> Any:
    if suffix == ".parquet":
        return pa.parquet.ParquetWriter(path, schema)
    if suffix == ".jsonl":
        return _JsonLines(path)
    options = pa.csv.WriteOptions(delimiter="\t" if suffix == ".tsv" else ",")
    return pa.csv.CSVWriter(path, schema, write_options=options)


class _JsonLines:
    """JSON lines with the interface of pyarrow's other writers."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8")

    def write_table(self, table: pa.Table) -> None:
        self.file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())

    def close(self) -> None:
        self.file.close()
