"""Which rows of a round are worth a person's minute: those that its teacher doubts, or that earlier rounds doubted.

    score = (1 - margin) + 1/2 [another label in the round before] + 1/2 max(0, 1 - B w)

margin is the top probability of the soft label less the second, B the rows of a step, w the mean meta weight in the
round before: 1 / B is what a row weighs where all weigh alike. The first round has the margin alone. Where scores are
equal the row that comes first in the corpus comes first.
"""

from __future__ import annotations

import numpy as np

from listflow.pipeline.run.review import Contested
from listflow.pipeline.run.run import Run
from listflow.pipeline.storage.pseudo_labels import PseudoLabels, load_meta_weights, look_up, mean_weights

CHANGED, LIGHT = 0.5, 0.5
LONGEST = 10_000  # characters of a text: what a person reads, and a spreadsheet holds


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


def _labels(run: Run, number: int) -> PseudoLabels:
    return PseudoLabels.load(run.round_folder(number) / "pseudo" / "labels.parquet", len(run.labels))


def _lightness(run: Run, number: int, rows: np.ndarray) -> np.ndarray:
    """(N,) how much less than an equal share each row weighed in the round before, from 0 to 1."""
    if number == 1:
        return np.zeros(len(rows))
    weighed, means = mean_weights([load_meta_weights(run.model_folder(number - 1) / "meta_weights.parquet")])
    found = look_up(weighed, means, rows)
    return np.where(found < 0, 0, np.maximum(0, 1 - run.config.student.batch * found))


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
    text, pair = run.inputs.corpus.texts([row])[0]
    return Contested(
        run.inputs.corpus.row_ids([row])[0], row, text[:LONGEST], pair and pair[:LONGEST], run.labels[top],
        float(soft[top]), run.labels[second], score, "; ".join(why),
    )  # fmt: skip
