"""Pseudo labels and meta weights as Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from listflow.data.pool import Pool

Weighed = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class PseudoLabels:
    """``rows`` (N,) ascending corpus indices, ``soft`` (N, C) fp32 class probabilities of the teacher."""

    rows: np.ndarray
    soft: np.ndarray

    def summary(self, labels: Sequence[str]) -> dict[str, Any]:
        """Row count, count per class of the top label, and mean top probability."""
        counts = np.bincount(self.soft.argmax(1), minlength=len(labels)).tolist()
        return {
            "rows": len(self.rows),
            "per_class": dict(zip(labels, counts, strict=True)),
            "mean_confidence": float(self.soft.max(1).mean()),
        }

    def save(self, path: Path, pool: Pool, labels: Sequence[str]) -> None:
        """row, row_id, top label, and one probability column per class (``p_<label>``)."""
        top = [labels[i] for i in self.soft.argmax(1)]
        columns = {"row": self.rows, "row_id": pool.row_ids(self.rows.tolist()), "label": top}
        columns |= {f"p_{label}": self.soft[:, i] for i, label in enumerate(labels)}
        pq.write_table(pa.table(columns), path)

    @staticmethod
    def load(path: Path, classes: int) -> PseudoLabels:
        """What ``save`` wrote; probabilities are the last ``classes`` columns."""
        table = pq.read_table(path)
        soft = np.stack([column.to_numpy() for column in table.columns[-classes:]], axis=1)
        return PseudoLabels(table["row"].to_numpy(), soft)


def save_meta_weights(path: Path, weighed: Sequence[Weighed]) -> None:
    """One row for every weight that was given: reweighted step, corpus row, weight."""
    steps = [np.full(len(rows), step, dtype=np.int32) for step, (rows, _) in enumerate(weighed)]
    rows = [rows.astype(np.int64) for rows, _ in weighed]
    weights = [weights.astype(np.float32) for _, weights in weighed]
    columns = {"step": _join(steps, "int32"), "row": _join(rows, "int64"), "weight": _join(weights, "float32")}
    pq.write_table(pa.table(columns), path)


def load_meta_weights(path: Path) -> pa.Table:
    """What ``save_meta_weights`` wrote."""
    return pq.read_table(path)


def mean_weights(tables: Sequence[pa.Table]) -> Weighed:
    """(corpus rows that were ever reweighted, ascending; the mean of their meta weights) over ``tables``."""
    return mean_over([(table["row"].to_numpy(), table["weight"].to_numpy()) for table in tables])


def mean_over(parts: Sequence[Weighed]) -> Weighed:
    """(the rows of all ``parts``, ascending; the mean of the weights that these give each)."""
    rows = _join([rows for rows, _ in parts], "int64")
    weights = _join([weights for _, weights in parts], "float64").astype(np.float64)
    unique, place, counts = np.unique(rows, return_inverse=True, return_counts=True)
    return unique, np.bincount(place, weights, minlength=len(unique)) / np.maximum(counts, 1)


def look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each wanted key among ascending ``keys``, or -1."""
    if not len(keys):
        return np.full(len(wanted), -1.0)
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], -1.0)


def _join(parts: Sequence[np.ndarray], dtype: str) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)
