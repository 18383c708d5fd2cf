"""What ways of multiplying cost in accuracy: labels of finished runs' own test rows, by each way.

    python benchmarks/arithmetic.py RUN... [--threads 1]

Every run must have been given a test file, which must still be there. Printed are, for each way, accuracy on its rows,
how many labels differ from those of `padded` (as the run itself read texts), the most that a probability differs, and
rows a second; then the means over all runs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from listflow.data.errors import InputError
from listflow.data.rows import read_rows
from listflow.pipeline.model.arithmetic import Arithmetic, check_here
from listflow.pipeline.results.finished import Finished
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.storage.checkpoint import read_json
from listflow.pipeline.storage.run_folder import RunFolder

Figures = tuple[float, int, float, float]


def ways_here() -> list[Arithmetic]:
    """Those that this machine has."""
    found: list[Arithmetic] = []
    for way in get_args(Arithmetic):
        try:
            check_here(way)
            found.append(way)
        except InputError as error:
            print(f"without {way}: {error}")
    return found


def measured(folder: Path, ways: list[Arithmetic]) -> dict[str, Figures]:
    """By way: accuracy, labels that differ, the largest difference of a probability, rows a second."""
    run = Finished.open(folder)
    source = read_json(RunFolder(folder).inputs)["files"]["test"]
    rows = list(read_rows(source, run.columns, is_pair=run.task.is_pair, labels=list(run.task.labels), want_label=True))
    texts, gold = [(row.text, row.pair) for row in rows], [row.label for row in rows]
    backbone, found, first = run.load_backbone(), dict[str, Figures](), np.zeros(0)
    for way in ways:
        predictor = Predictor.of(run, backbone, way)
        predictor.probabilities(texts[:64])
        began = time.perf_counter()
        soft = predictor.probabilities(texts)
        seconds = time.perf_counter() - began
        first = first if len(first) else soft
        right = np.mean([predictor.labels[i] == label for i, label in zip(soft.argmax(1), gold, strict=True)])
        other = int((soft.argmax(1) != first.argmax(1)).sum())
        found[way] = float(right), other, float(np.abs(soft - first).max()), len(texts) / seconds
        print(_line(f"{folder.name} ({len(predictor.committee.views)} views)", way, found[way]), flush=True)
    return found


def _line(name: str, way: str, figures: Figures) -> str:
    right, other, most, rate = figures
    return f"{name:40} {way:9} {100 * right:6.2f} % right {other:5.0f} others {most:8.4f} {rate:6.0f} rows/s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ways = ways_here()
    every = [measured(folder, ways) for folder in options.runs]
    for way in ways:
        means = np.mean([found[way] for found in every], axis=0)
        print(_line(f"mean of {len(every)}", way, tuple(means.tolist())))


if __name__ == "__main__":
    main()
