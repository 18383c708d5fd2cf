"""What it saves to use freed memory again: a training and passes with and without it, side by side.

    python benchmarks/allocator.py [--repeats 3]
    python benchmarks/allocator.py measure kept|returned      one measurement, in a process of its own

`returned` is glibc as the environment sets it, `kept` is after `keep_freed_memory`. The environment is once a plain
one, once the one that dask gives its workers. Printed are the medians: seconds of a small run of LiST and of 800
texts labelled, on the embedded backbone with one thread, page faults of both, and the peak of resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from label import finished_run, texts

from listflow.pipeline.backbone import backbone
from listflow.pipeline.results.predictor import Predictor

ENVIRONMENTS = {"plain": {}, "dask's": {"MALLOC_TRIM_THRESHOLD_": "65536"}}
MODES = ("returned", "kept")
ROWS = 800


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    one = parser.add_subparsers(dest="part").add_parser("measure")
    one.add_argument("mode", choices=MODES)
    options = parser.parse_args()
    if options.part == "measure":
        measure(options.mode)
    else:
        compare(options.repeats)


def compare(repeats: int) -> None:
    print("environment memory    train s  label s     faults  peak MB")
    for name, environment in ENVIRONMENTS.items():
        found: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
        for _ in range(repeats):
            for mode, ones in found.items():
                ones.append(measured(mode, environment))
        for mode, ones in found.items():
            middle = {key: statistics.median(one[key] for one in ones) for key in ones[0]}
            times = f"{middle['train']:8.1f} {middle['label']:8.2f}"
            print(f"{name:11} {mode:8} {times} {middle['faults']:10,.0f} {middle['peak']:8.0f}", flush=True)


def measured(mode: str, environment: dict[str, str]) -> dict[str, float]:
    """What ``measure`` prints, in a process whose allocator is only set by ``environment``."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    command = [sys.executable, __file__, "measure", mode]
    told = subprocess.run(command, env=mine | environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(told.splitlines()[-1])


def measure(mode: str) -> None:
    torch.set_num_threads(1)
    if mode == "returned":
        backbone.keep_freed_memory = lambda: None
    with TemporaryDirectory() as name:
        began = time.perf_counter()
        run = finished_run(Path(name), "minilm")
        train = time.perf_counter() - began
        predictor = Predictor.open(run)
        rows = list(texts(ROWS))
        predictor.probabilities(rows[:64])
        began = time.perf_counter()
        predictor.probabilities(rows)
        label = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"train": train, "label": label, "faults": used.ru_minflt, "peak": used.ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
