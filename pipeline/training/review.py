"""Reviews in the rounds: which rows are worth a person's minute, and what corrections do.

    score = (1 - margin) + 1/2 [another label in the round before] + 1/2 max(0, 1 - B w)

margin is the top probability of the soft label less the second, B the rows of a step, w the mean meta weight in the
round before (1 / B is an equal share). A corrected row is a labelled one from the next round on, and no longer drawn.
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from listflow.data.errors import InputError
from listflow.data.files import replacing
from listflow.data.values import harmless
from listflow.pipeline.run.run import Run
from listflow.pipeline.storage.pseudo_labels import PseudoLabels, look_up
from listflow.pipeline.storage.review import (
    CORRECTIONS,
    CSV,
    Asked,
    Contested,
    Correction,
    conclude,
    read_asked,
    read_reviewed,
    write_asked,
)
from listflow.pipeline.training.committee import mean_shares

CHANGED, LIGHT = 0.5, 0.5
LONGEST = 10_000  # characters of a text: what a person reads, and a spreadsheet holds


def ask(run: Run, number: int) -> Asked | None:
    """What a labelled round asks a person, written down; None for a round that does not ask."""
    if not run.config.review.asks(number, run.config.rounds.count):
        return None
    asked = read_asked(run.folder, number)
    if asked is None:
        folder = run.round(number).review
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
    paths = [run.round(earlier).review / CORRECTIONS for earlier in range(1, number)]
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


def contested_rows(run: Run, number: int) -> tuple[Contested, ...]:
    """The most contested rows of a round, ``review.rows`` at most; one row at least stays unlabelled."""
    labels = _labels(run, number)
    earlier = np.full(len(labels.rows), -1)
    if number > 1:
        before = _labels(run, number - 1)
        earlier = look_up(before.rows, before.soft.argmax(1), labels.rows).astype(int)
    light = _lightness(run, number, labels.rows)
    scores = scores_of(labels.soft, earlier, light)
    first = np.lexsort((labels.rows, -scores))[: min(run.config.review.rows, len(scores) - 1)]
    return tuple(_contested(run, labels, earlier, light, float(scores[place]), int(place)) for place in first)


def scores_of(soft: np.ndarray, earlier: np.ndarray, light: np.ndarray) -> np.ndarray:
    """(N,) scores from soft labels (N, C), the labels of the round before (-1: none), and ``light`` from 0 to 1."""
    ranked = np.sort(soft, axis=1)
    changed = (earlier >= 0) & (earlier != soft.argmax(1))
    return 1 - (ranked[:, -1] - ranked[:, -2]) + CHANGED * changed + LIGHT * light


@dataclass(frozen=True)
class WeighedRow:
    """A pseudo-labelled row; ``weight`` is its mean meta weight, and 1 where all rows of a step weigh alike."""

    row_id: str
    text: str
    label: str
    weight: float


def weighed_rows(run: Run, number: int, most: int) -> tuple[list[WeighedRow], list[WeighedRow]]:
    """(the rows of a round that weighed most, those that weighed least): ``most`` of each, the extreme ones first.

    Many weigh nothing at all: of rows that weigh the same, those come first of which the teacher was least sure.
    """
    kept = run.round(number)
    rows, shares = mean_shares(run, number)
    labels = PseudoLabels.load(kept.labels, len(run.labels))
    top = look_up(labels.rows, labels.soft.argmax(1), rows).astype(int)
    sure = look_up(labels.rows, labels.soft.max(1), rows)
    most = min(most, len(rows) // 2)
    heavy, light = np.lexsort((rows, sure, -shares))[:most], np.lexsort((rows, sure, shares))[:most]
    pool = run.inputs.pool

    def told(places: np.ndarray) -> list[WeighedRow]:
        chosen = rows[places].tolist()
        texts = [text if pair is None else f"{text} / {pair}" for text, pair in pool.texts(chosen)]
        facts = zip(pool.row_ids(chosen), texts, top[places].tolist(), shares[places].tolist(), strict=True)
        return [WeighedRow(row_id, text, run.labels[label], share) for row_id, text, label, share in facts]

    return told(heavy), told(light)


def write_csv(path: Path, rows: tuple[Contested, ...]) -> None:
    """The rows as a person fills them in: ``label`` is empty, and only ``row_id`` and ``label`` are read back."""
    with replacing(path) as aside, aside.open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file)
        table.writerow(["row_id", "label", "teacher", "probability", "runner_up", "why", "text", "second text"])
        for row in rows:
            cells = (row.row_id, "", row.label, f"{row.probability:.3f}", row.runner_up, row.why, row.text, row.pair)
            table.writerow([harmless(cell or "") for cell in cells])


def _labels(run: Run, number: int) -> PseudoLabels:
    return PseudoLabels.load(run.round(number).labels, len(run.labels))


def _lightness(run: Run, number: int, rows: np.ndarray) -> np.ndarray:
    """(N,) how much less than an equal share each row weighed in the round before, from 0 to 1."""
    if number == 1:
        return np.zeros(len(rows))
    found = look_up(*mean_shares(run, number - 1), rows)
    return np.where(found < 0, 0, np.maximum(0, 1 - found))


def _contested(
    run: Run, labels: PseudoLabels, earlier: np.ndarray, light: np.ndarray, score: float, place: int
) -> Contested:
    soft, row = labels.soft[place], int(labels.rows[place])
    top, second = np.argsort(-soft, kind="stable")[:2].tolist()
    why = [f"{soft[top]:.2f} against {soft[second]:.2f}"]
    if earlier[place] >= 0 and earlier[place] != top:
        why.append(f"the teacher before said {run.labels[earlier[place]]}")
    if light[place] > 0:
        why.append(f"{1 - light[place]:.0%} of an equal weight")
    text, pair = run.inputs.pool.texts([row])[0]
    return Contested(
        run.inputs.pool.row_ids([row])[0], row, text[:LONGEST], pair and pair[:LONGEST], run.labels[top],
        float(soft[top]), run.labels[second], score, "; ".join(why),
    )  # fmt: skip
