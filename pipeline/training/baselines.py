"""What people would use instead, on the very same sentence embeddings: nothing of it teaches, it is only reported.

Logistic regression sees the labelled rows alone; label spreading sees them and the pool.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from listflow.pipeline.backbone.batch import Encoded
from listflow.pipeline.method.metrics import Metrics, measure
from listflow.pipeline.method.sampling import generator_for
from listflow.pipeline.model.config import reads_middle
from listflow.pipeline.run.run import Run

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression
    from sklearn.semi_supervised import LabelSpreading

REGRESSION, SPREADING = "logistic regression", "label spreading"
NEIGHBOURS = 15
MOST_POOL = 5000  # rows of the pool that labels spread over: what it costs grows with their square
UNLABELLED = -1  # as scikit-learn says it


def baselines_of(run: Run) -> dict[str, Metrics | None]:
    """By name, what each reaches on the whole test file; None for one that these labelled rows cannot fit.

    Empty without test rows, and for a run without a text view.
    """
    view = next((view for view in run.views if view.view == "text"), None)
    if view is None or view.test is None or view.test_gold is None:
        return {}
    if len(view.gold.unique()) < 2:
        return {REGRESSION: None, SPREADING: None}
    labelled, gold, test = _vectors(view, view.labelled), view.gold.numpy(), _vectors(view, view.test)
    pool = _vectors(view, view.corpus.take(_some_of(view)))
    found = {REGRESSION: _regression(labelled, gold, test), SPREADING: _spreading(labelled, gold, pool, test)}
    classes, truth = np.unique(gold), view.test_gold.numpy()
    return {name: measure(_widened(soft, classes, len(run.labels)), truth) for name, soft in found.items()}


def _regression(labelled: np.ndarray, gold: np.ndarray, test: np.ndarray) -> np.ndarray:
    # scikit-learn is slow to import, and a run without test rows needs nothing of it.
    from sklearn.linear_model import LogisticRegression

    return _fitted(LogisticRegression(C=10, max_iter=1000), labelled, gold, test)


def _spreading(labelled: np.ndarray, gold: np.ndarray, pool: np.ndarray, test: np.ndarray) -> np.ndarray:
    from sklearn.semi_supervised import LabelSpreading

    rows, told = np.concatenate([labelled, pool]), np.concatenate([gold, np.full(len(pool), UNLABELLED)])
    model = LabelSpreading(kernel="knn", n_neighbors=min(NEIGHBOURS, len(rows)), alpha=0.2, max_iter=100)
    return _fitted(model, rows, told, test)


def _fitted(
    model: LogisticRegression | LabelSpreading, rows: np.ndarray, gold: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """(N, classes that are seen) probabilities; equal where no label has come near a row."""
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore")  # of steps that ran out and of rows that nothing reached: neither is the user's
        soft = model.fit(rows, gold).predict_proba(test)
    return np.nan_to_num(soft, nan=1 / soft.shape[1])


def _widened(soft: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """(N, C) with a column for every label of the task: nothing for one without a labelled row."""
    wide = np.zeros((len(soft), count))
    wide[:, classes] = soft
    return wide


def _some_of(view: Run) -> np.ndarray:
    drawn = generator_for(view.config.seed, "baselines").permutation(len(view.corpus))[:MOST_POOL]
    return np.sort(drawn)


def _vectors(view: Run, encoded: Encoded) -> np.ndarray:
    """(N, D) sentence embeddings, or features of pairs, and of no layer below them."""
    assert encoded.features is not None
    found = np.array(encoded.features.values[encoded.features.starts])
    return found[:, : view.backbone.hidden_size] if reads_middle(view.config.head) else found
