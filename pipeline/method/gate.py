"""Whether a student may replace its teacher, judged without a single test label.

Two kinds of evidence. (1) The K labelled rows before the student ever took a cross-entropy step on them (the
end of its pseudo-labelled steps): there they are close to unseen rows. The teacher's side is the same quantity
from the round that made it, or, for the round-0 teacher, from cross-validation. Errors count, not losses: soft labels
are sharpened, so a better student can still be more confident where it is wrong. (2) A fixed sample of unlabelled
rows: a class that the teacher sees and the student has all but lost is a collapse, whatever the labels say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

SEEN_SHARE = 0.05
LOST_FRACTION = 0.2
STANDARD_ERRORS = 1.0
FEWEST_HELD = 10


@dataclass(frozen=True)
class Evidence:
    """What is known of a model: (K,) whether it erred on labelled rows it had not fitted, predictions (S,).

    K counts the rows that were labelled when it was trained.
    """

    errors: np.ndarray
    sample: np.ndarray


@dataclass(frozen=True)
class Judgement:
    """``promote``, and the reason in a sentence a report can show."""

    promote: bool
    reason: str


def gate(teacher: Evidence, student: Evidence, classes: int) -> Judgement:
    """Promote unless the student is worse on the held-back labels, or has lost a class of the sample."""
    # A student may have rows that were corrected since its teacher was trained: they come last, and do not compare.
    common = min(len(teacher.errors), len(student.errors))
    teacher, student = (replace(side, errors=side.errors[:common]) for side in (teacher, student))
    more = student.errors.astype(float) - teacher.errors.astype(float)
    mean = float(more.mean()) if len(more) else 0.0
    error = float(more.std(ddof=1) / np.sqrt(len(more))) if len(more) > 1 else 0.0
    counts = f"{int(student.errors.sum())} of {len(more)} labelled rows wrong before the tail"
    if mean > STANDARD_ERRORS * error:
        return Judgement(False, f"{counts}, the teacher {int(teacher.errors.sum())}")
    lost = lost_classes(teacher.sample, student.sample, classes)
    if lost:
        return Judgement(False, f"{len(lost)} class(es) that the teacher predicts have all but vanished")
    return Judgement(True, f"{counts}, the teacher {int(teacher.errors.sum())}")


def lost_classes(teacher: np.ndarray, student: np.ndarray, classes: int) -> list[int]:
    """Classes with a share of at least ``SEEN_SHARE`` in ``teacher`` and under a fifth of it in ``student``."""
    before, after = (np.bincount(p, minlength=classes) / len(p) for p in (teacher, student))
    return np.flatnonzero((before >= SEEN_SHARE) & (after < LOST_FRACTION * before)).tolist()


def folds(rows: int, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """``count`` disjoint sets of row indices that cover all ``rows``; fewer when there are fewer rows."""
    return [np.sort(part) for part in np.array_split(rng.permutation(rows), min(count, rows))]


def stratified(gold: np.ndarray, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Up to ``count`` disjoint sets of row indices, the rows of every class dealt out in turn.

    The only row of a class is in none. No set at all where fewer than FEWEST_HELD rows could be held out: then only
    what is said before any label is used can be held against the labels.
    """
    by_class = [np.flatnonzero(gold == c) for c in np.unique(gold)]
    order = np.concatenate([rng.permutation(rows) for rows in by_class if len(rows) > 1] or [np.arange(0)])
    if len(order) < FEWEST_HELD:
        return []
    return [np.sort(order[start::count]) for start in range(min(count, len(order)))]
