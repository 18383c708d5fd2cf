"""What a run makes of reviews: it asks about contested rows, and corrected ones are labelled from the next round on."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from listflow.data.errors import InputError
from listflow.data.files import replacing
from listflow.pipeline.contested import contested_rows
from listflow.pipeline.run.review import (
    CORRECTIONS,
    CSV,
    Asked,
    Contested,
    Correction,
    conclude,
    read_asked,
    read_reviewed,
    review_folder,
    write_asked,
)  # fmt: skip
from listflow.pipeline.run.run import Run

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet may compute


def ask(run: Run, number: int) -> Asked | None:
    """What a labelled round asks a person, written down; None for a round that does not ask."""
    if not run.config.review.asks(number, run.config.rounds.count):
        return None
    asked = read_asked(run.folder, number)
    if asked is None:
        folder = review_folder(run.folder, number)
        folder.mkdir(parents=True, exist_ok=True)
        asked = Asked(folder, number, tuple(run.labels), contested_rows(run, number))
        write_csv(asked.folder / CSV, asked.rows)
        write_asked(asked)
    return asked


def close_before(run: Run, number: int) -> None:
    """Ends the reviews that nobody has answered before round ``number``, which is about to begin."""
    for earlier in range(1, number):
        asked = read_asked(run.folder, earlier)
        if asked is not None:
            conclude(asked, (), unanswered=f"nobody answered before round {earlier + 1}")


def corrections_before(run: Run, number: int) -> list[Correction]:
    """What persons said in the rounds before ``number``: in the order of rounds, and of the corpus within each."""
    found: list[Correction] = []
    for earlier in range(1, number):
        ended = read_reviewed(run.folder, earlier)
        found += ended.rows if ended else ()
    for correction in found:
        if correction.label not in run.labels or not 0 <= correction.row < len(run.corpus):
            raise InputError(
                f"{run.folder} has a correction of no row or label of its own; restore its review folders."
            )
    return found


def correction_files(run: Run, number: int) -> list[Path]:
    """The files that hold what was said before round ``number``."""
    paths = [review_folder(run.folder, earlier) / CORRECTIONS for earlier in range(1, number)]
    return [path for path in paths if path.exists()]


def correction_inputs(run: Run, number: int) -> dict[str, str]:
    """What a manifest of round ``number`` records of corrections: nothing where there are none.

    Rows and labels only: who gave them, and when, changes no byte.
    """
    said = [(correction.row, correction.label) for correction in corrections_before(run, number)]
    return {"corrections": hashlib.sha256(json.dumps(said).encode()).hexdigest()} if said else {}


def with_corrections(run: Run, number: int) -> Run:
    """``run`` as round ``number`` sees it: rows that were corrected before are labelled ones, after all others."""
    rows = corrected_rows(run, number)
    if not len(rows):
        return run
    return replace(run, labelled=run.labelled.join(run.corpus.take(rows)), gold=gold_of(run, number))


def gold_of(run: Run, number: int) -> Tensor:
    """The class of every labelled row that round ``number`` has."""
    said = [run.labels.index(correction.label) for correction in corrections_before(run, number)]
    return torch.cat([run.gold, torch.tensor(said, dtype=run.gold.dtype)])


def corrected_rows(run: Run, number: int) -> np.ndarray:
    """The corpus rows that are labelled ones in round ``number``, in the order of the corrections."""
    return np.array([correction.row for correction in corrections_before(run, number)], dtype=np.int64)


def write_csv(path: Path, rows: tuple[Contested, ...]) -> None:
    """The rows as a person fills them in: ``label`` is empty, and only ``row_id`` and ``label`` are read back."""
    with replacing(path) as aside, aside.open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file)
        table.writerow(["row_id", "label", "teacher", "probability", "runner_up", "why", "text", "second text"])
        for row in rows:
            cells = (row.row_id, "", row.label, f"{row.probability:.3f}", row.runner_up, row.why, row.text, row.pair)
            table.writerow([_harmless(cell or "") for cell in cells])


def _harmless(cell: str) -> str:
    """``cell``, marked as text for a spreadsheet where it would read it as a formula."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell
