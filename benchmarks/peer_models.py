"""What people would use instead, on the same frozen sentence embeddings; each returns a label for every test row.

Pairs are told by [cosine, |u - v|, u * v] of the embeddings of both texts. SetFit, which trains the encoder, runs in an
environment of its own and gets both texts of a pair joined.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from peer_data import Draw, Line, lines_of
from real import OUT, embed
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import LabelEncoder
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

from listflow.data.files import file_digest
from listflow.pipeline.backbone.pretrained import base_folder

SETFIT = Path(__file__).with_name("setfit_peer.py")


def logistic_regression(rows: Draw) -> list[str]:
    """C = 10, on the labelled rows alone."""
    return list(_regression().fit(features(rows.labelled), _gold(rows)).predict(features(rows.test)))


def label_spreading(rows: Draw) -> list[str]:
    """Over the 15 nearest neighbours among labelled rows and pool; a label keeps 1 - alpha of itself, alpha = 0.2."""
    model = LabelSpreading(kernel="knn", n_neighbors=15, alpha=0.2, max_iter=100)
    return _with_pool(rows, model)


def self_training(rows: Draw) -> list[str]:
    """Logistic regression that takes its own labels of probability 0.8 and more for true, ten times at most."""
    return _with_pool(rows, SelfTrainingClassifier(_regression(), threshold=0.8))


def setfit(rows: Draw, python: str) -> list[str]:
    """SetFit 1.2 with its defaults and 20 iterations, by the ``python`` of an environment that has it."""
    files = [str(path) for path in (base_folder(), rows.labelled, rows.test)]
    with TemporaryDirectory() as scratch:  # it leaves checkpoints where it runs
        done = subprocess.run([python, str(SETFIT), *files], capture_output=True, text=True, check=False, cwd=scratch)
    if done.returncode:
        raise SystemExit(f"SetFit failed on {rows.name}: {done.stderr[-2000:]}")
    return list(json.loads(done.stdout.splitlines()[-1]))


def features(path: Path) -> np.ndarray:
    """(N, D) of a file's rows, kept by its digest."""
    kept = OUT / "peers" / "features" / f"{file_digest(path)[:16]}.npy"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, _features(lines_of(path)))
    return np.load(kept, allow_pickle=False)


def _features(lines: list[Line]) -> np.ndarray:
    if "text" in lines[0]:
        return embed([line["text"] for line in lines])
    u, v = (embed([line[name] for line in lines]) for name in ("text_a", "text_b"))
    return np.concatenate([(u * v).sum(1, keepdims=True), np.abs(u - v), u * v], axis=1)


def _regression() -> LogisticRegression:
    return LogisticRegression(C=10, max_iter=1000)


def _gold(rows: Draw) -> list[str]:
    return [line["label"] for line in lines_of(rows.labelled)]


def _with_pool(rows: Draw, model: LabelSpreading | SelfTrainingClassifier) -> list[str]:
    names, pool = LabelEncoder().fit(_gold(rows)), features(rows.pool)
    labels = np.concatenate([names.transform(_gold(rows)), np.full(len(pool), -1)])
    model.fit(np.concatenate([features(rows.labelled), pool]), labels)
    return list(names.inverse_transform(model.predict(features(rows.test))))
