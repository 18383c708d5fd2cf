"""What a person says of rows that a run asks about: a label for a row id, from a file or from lines of text."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass

from listflow.data.errors import InputError
from listflow.data.formats import open_source, records_of

ROW_ID, LABEL = "row_id", "label"


@dataclass(frozen=True)
class Answer:
    """A label for a row; ``where`` it was written, for messages."""

    row_id: str
    label: str
    where: str


def read_answers(source: str) -> Iterator[Answer]:
    """Yield the answers in the columns ``row_id`` and ``label`` of a csv, tsv, jsonl or parquet file.

    Rows with an empty label are no answers. Raises InputError for a file that cannot be read, or has no rows.
    """
    open_source(source).close()  # what is no file here is not looked for on a hub
    number = 0
    for number, record in enumerate(records_of(source, {ROW_ID: "", LABEL: ""}), 1):
        row_id, label = (_cell(record[name]) for name in (ROW_ID, LABEL))
        if label:
            yield Answer(row_id, label, f"{source}, row {number}")
    if not number:
        raise InputError(f"{source}: is empty; it needs at least one row of data.")


def parse_answers(text: str) -> Iterator[Answer]:
    """Yield the answers in lines of ``row_id,label``; a semicolon ends a line too, for forms of a single line.

    A line without a label is no answer. Raises InputError for a line of another shape.
    """
    for number, line in enumerate(text.replace(";", "\n").splitlines(), 1):
        cells = [cell.strip() for cell in next(csv.reader([line]), [])]
        if cells in ([], [""], [ROW_ID, LABEL]):
            continue
        if len(cells) != 2:
            raise InputError(f"line {number}, {line.strip()!r}, is not row_id,label; write one row a line.")
        if cells[1]:
            yield Answer(cells[0], cells[1], f"line {number}")


def _cell(value: object) -> str:
    return "" if value is None else str(value).strip()
