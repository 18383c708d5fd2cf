"""What labelled rows that were held out tell of a run's model: how often it is right, and how sure it may be."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from listflow.pipeline.method.estimate import cooled, estimated
from listflow.pipeline.method.metrics import Estimate
from listflow.pipeline.run.run import Run
from listflow.pipeline.storage.checkpoint import load_tensors
from listflow.pipeline.storage.run_folder import EVIDENCE
from listflow.pipeline.training.committee import mixture_of, said_of, speaking, without_own_label
from listflow.pipeline.training.label_vectors import folds_of

FEWEST_HELD = 0.5  # of the labelled rows: of fewer an estimate says nothing


def accuracy_and_temperature(run: Run, winner: int) -> tuple[Estimate | None, float]:
    """(the estimate of accuracy, the temperature of the final logits of round ``winner``), as the run asks for them.

    None and 1 where it does not, and where fewer than half of the labelled rows can be held out. Both are of the
    round-0 teachers, made anew without the rows in question: no test row and no label of the pool is in them.
    """
    config = run.config
    folds = folds_of(run) if config.estimate or config.calibrate else []
    rows = np.sort(np.concatenate(folds)) if folds else np.zeros(0, int)
    if not len(rows) or len(rows) < FEWEST_HELD * len(run.gold):
        return None, 1.0
    found = estimated(_unseen(run)[rows], run.gold[rows])
    sure = config.calibrate and not run.lone
    return found if config.estimate else None, cooled(said_of(run, winner, "sample"), found) if sure else 1.0


def _unseen(run: Run) -> Tensor:
    """(K, C) logits of the labelled rows by the round-0 committee without their own label; as kept, or made again."""
    views, kept = speaking(run), run.round(0).committee / EVIDENCE
    known = load_tensors(kept) if run.others and kept.exists() else {}
    return mixture_of(run).logits(0, [_of(view, known) for view in views])


def _of(view: Run, known: dict[str, Tensor]) -> Tensor:
    return known[view.view] if view.view in known else without_own_label(view)
