"""Rows that persons labelled in reviews, as labelled rows of the runs that go on from the reviewed one.

RUN/inputs/reviewed.json holds those that a run was given; it hands them on with its own.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from listflow.data.pool import Corpus
from listflow.data.rows import Row
from listflow.pipeline.run.review import read_reviewed
from listflow.pipeline.storage.checkpoint import FORMAT, read_json, write_json

REVIEWED = "reviewed.json"


def reviewed_rows(run: Path, rounds: int, corpus: Corpus) -> tuple[Row, ...]:
    """What was labelled in reviews before the run in ``run`` and in its own ``rounds``, in that order."""
    path = run / "inputs" / REVIEWED
    texts = [(row["text"], row["pair"], row["label"]) for row in read_json(path)["rows"]] if path.exists() else []
    for number in range(1, rounds + 1):
        ended = read_reviewed(run, number)
        said = ended.rows if ended else ()
        of_rows = corpus.texts([correction.row for correction in said])
        texts += [(*text, correction.label) for text, correction in zip(of_rows, said, strict=True)]
    return tuple(Row(*text, number) for number, text in enumerate(texts, 1))


def keep_rows(run: Path, rows: tuple[Row, ...]) -> None:
    """Keeps what the run in ``run`` was given, where that is something."""
    if rows:
        stored = [{"text": row.text, "pair": row.pair, "label": row.label} for row in rows]
        write_json(run / "inputs" / REVIEWED, {"format": FORMAT, "rows": stored})


def digest_of(rows: tuple[Row, ...]) -> dict[str, str]:
    """The sha256 of the rows as a run's inputs record it; nothing where there are none."""
    told = json.dumps([(row.text, row.pair, row.label) for row in rows])
    return {"reviewed": hashlib.sha256(told.encode()).hexdigest()} if rows else {}
