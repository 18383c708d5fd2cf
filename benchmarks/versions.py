"""What the default costs in one version of listflow beside another: time and memory of a run, rows labelled a second.

    python benchmarks/versions.py BEFORE AFTER DATA [--task sst2] [--draws 1 2] [--repeats 3]

BEFORE and AFTER are the python of two installations (.venv/bin/python of two checkouts). On each draw of `peers.py`
(30 labelled rows, 3,000 unlabelled ones, 1,000 test rows) both make a run with nothing set but the task, then label
the 3,000 rows with what they made; every step is a process of one thread, and both take turns, so that what else the
machine does falls on both. Prints medians, and how AFTER is to BEFORE: the median of the turns' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peer_data import Draw, draw_of, lines_of

from listflow import Predictor, build_config, self_train

MEASURES = ("run, s", "run, CPU s", "run, peak MB", "rows/s labelled")
PASSES = 3
Taken = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--draws", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--step", choices=["train", "label"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        torch.set_num_threads(1)
        rows = draw_of(given.data, given.task, given.draws[0])
        print(json.dumps((_train if given.step == "train" else _label)(rows, given.folder)))
        return
    for number in given.draws:
        compare(given, number)


def compare(given: argparse.Namespace, number: int) -> None:
    """Prints what each side takes on one draw."""
    draw_of(given.data, given.task, number)
    sides = given.before.absolute(), given.after.absolute()
    found: list[list[Taken]] = [[], []]
    for turn in range(given.repeats):
        for side in (0, 1) if turn % 2 else (1, 0):
            found[side].append(taken(sides[side], given, number))
    weights = found[1][0].get("weights")
    print(f"{given.task}, draw {number}, {given.repeats} turns, load {os.getloadavg()[0]:.1f}; after: {weights}")
    for measure in MEASURES:
        before, after = ([one[measure] for one in side] for side in found)
        ratio = median(b / a for a, b in zip(before, after, strict=True))
        print(f"  {measure:16} {median(before):8.1f} {median(after):8.1f}   {ratio:.2f} x", flush=True)


def taken(python: Path, given: argparse.Namespace, number: int) -> Taken:
    """A run and the labelling of its pool by ``python``, each in a new process."""
    told: Taken = {}
    with TemporaryDirectory() as folder:
        for step in ("train", "label"):
            asked = ["--task", given.task, "--draws", str(number), "--step", step, "--folder", folder]
            command = [str(python), __file__, str(given.before), str(given.after), str(given.data), *asked]
            environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            told |= json.loads(done.stdout.splitlines()[-1])
    return told


def _train(rows: Draw, folder: Path) -> Taken:
    files = {"labelled": str(rows.labelled), "unlabelled": [str(rows.pool)], "test": str(rows.test)}
    given = {"task": rows.task, "seed": rows.number, "run_dir": str(folder / "run"), "data": files}
    began, cpu = time.perf_counter(), time.process_time()
    report = self_train(build_config("fast", given))
    told = {"run, s": time.perf_counter() - began, "run, CPU s": time.process_time() - cpu, "run, peak MB": _peak()}
    views = {view.view: round(view.weight, 2) for view in getattr(report, "views", ())}
    return told | ({"weights": views} if views else {})


def _label(rows: Draw, folder: Path) -> Taken:
    """The model is loaded and has read a few texts before; of several passes over the pool the median counts."""
    model = Predictor.open(folder / "run")
    texts = [(line.get("text") or line["text_a"], line.get("text_b")) for line in lines_of(rows.pool)]
    model.probabilities(texts[:100])
    seconds = []
    for _ in range(PASSES):
        began = time.perf_counter()
        model.probabilities(texts)
        seconds.append(time.perf_counter() - began)
    return {"rows/s labelled": len(texts) / median(seconds)}


def _peak() -> float:
    """The most resident memory that this process has had, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
