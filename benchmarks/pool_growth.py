"""What grows with the pool: one run each on corpora of more and more short rows, then one that goes on with 1 % more.

    python benchmarks/pool_growth.py [--rows 1000 10000 100000 1000000] [--backbone tiny|minilm] [--threads 1]
    python benchmarks/pool_growth.py --step run|continue FOLDER       one run of it, in a process of its own

For each number of rows it ingests a corpus, runs the fast preset on it, ingests 1 % new rows and goes on from that run;
every run is made in a new process, so that its peak of memory is its own. Printed are the seconds before the first
training step (the first that tells a loss) and before the first step of a student, of all rounds from the first step
on, of labelling every row, and in all; CPU seconds; the peak of resident memory, of which `own` leaves out pages of
files, which the system takes back when it needs them; MB of the run's folder, and of kept features and vectors in it.
Then the exponent of seconds over rows between neighbours from 10,000 up and over all of these, what memory grows by
from there, and what share of the first run's time before its first step the one that goes on takes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from label import peak, texts, tiny_backbone

from listflow.data.corpora.ingest import ingest
from listflow.data.task import Columns
from listflow.pipeline.backbone.backbone import load_backbone
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.lineage import continued
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.run import Progress
from listflow.pipeline.self_training import self_train

LABELLED, LEAST = 30, 10_000
GOAL_EXPONENT, GOAL_MB, GOAL_SHARE = 1.05, 100, 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--backbone", choices=["tiny", "minilm"], default="tiny")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--step", choices=["run", "continue"])
    parser.add_argument("folder", type=Path, nargs="?")
    options = parser.parse_args()
    if options.step:
        take_step(options.step, options.folder, options.backbone, options.threads)
    else:
        compare(options.rows, options.backbone, options.threads)


def compare(sizes: Sequence[int], backbone: str, threads: int) -> None:
    """Prints a line for each run, then what grows with the rows."""
    print(f"{backbone}, {threads} thread(s), load {os.getloadavg()[0]:.1f}")
    columns = ("before", "student", "rounds", "labels", "whole", "CPU s", "peak MB", "own MB", "run MB", "kept MB")
    print("      rows run     ", *(f"{column:>8}" for column in columns))
    found: dict[int, dict[str, Any]] = {}
    for rows in sizes:
        with TemporaryDirectory() as name:
            folder = Path(name)
            prepare(folder, backbone)
            grow(folder, "first", 0, rows)
            found[rows] = told(rows, "run", folder, backbone, threads)
            grow(folder, "more", rows, rows + max(rows // 100, 1))
            found[rows]["continued"] = told(rows, "continue", folder, backbone, threads)
    for line in grown(found):
        print(line)


def prepare(folder: Path, backbone: str) -> None:
    """The labelled rows, the task and the backbone of all runs in ``folder``."""
    rows = [{"text": text, "label": ("no", "yes")[i % 2]} for i, text in enumerate(texts(LABELLED))]
    (folder / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "task.yaml").write_text(
        'name: growth\ntemplate: "{text} it was {mask}"\nlabels: {"no": bad, "yes": good}\n'
    )
    if backbone == "tiny":
        tiny_backbone(folder / "tiny")


def grow(folder: Path, name: str, first: int, end: int) -> None:
    """Ingests the short rows of these numbers."""
    path = folder / f"{name}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(
            json.dumps({"text": text}) + "\n" for number, text in enumerate(texts(end + LABELLED)) if number >= first
        )
    ingest(folder / "corpus", [str(path)], Columns(), keep_out=[str(folder / "labelled.jsonl")])
    path.unlink()


def told(rows: int, step: str, folder: Path, backbone: str, threads: int) -> dict[str, Any]:
    """What a run says of itself, from a process of its own; a line is printed of it."""
    command = [sys.executable, __file__, "--step", step, str(folder)]
    command += ["--backbone", backbone, "--threads", str(threads)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    seconds = (f"{found[name]:>8.1f}" for name in ("before", "student", "rounds", "labels", "whole", "cpu"))
    sizes = (f"{found[name]:>8.0f}" for name in ("peak", "own", "run", "features"))
    print(f"{rows:>10,} {step:8}", *seconds, *sizes, flush=True)
    return found


def take_step(step: str, folder: Path, backbone: str, threads: int) -> None:
    """One run; prints what it took as JSON. Neither imports nor the start of Python count."""
    torch.set_num_threads(threads)
    config = first_config(folder, backbone) if step == "run" else continued(folder / "run", folder / "next")
    load_backbone(config.backbone.name, "fp32", "cpu")  # what is imported for it takes seconds, once
    watch, clock = OwnMemory(), Clock()
    began = time.process_time()
    with watch:
        self_train(config, clock)
    whole, cpu = clock.seconds(), time.process_time() - began
    made = Path(config.run_dir or "")
    kept = sum(size(made / "inputs" / name) for name in ("features", "vectors"))
    print(json.dumps({
        "before": clock.first, "student": clock.student, "rounds": clock.labels - clock.first,
        "labels": clock.last - clock.labels,
        "whole": whole, "cpu": cpu, "peak": peak(), "own": watch.most, "run": size(made), "features": kept,
    }))  # fmt: skip


class Clock:
    """When the first step and the first of a student were taken, and when labelling every row began and ended."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.first = self.student = self.labels = self.last = math.nan

    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def __call__(self, now: Progress) -> None:
        if now.loss is not None and math.isnan(self.first):
            self.first = self.seconds()
        if now.loss is not None and now.round and math.isnan(self.student):
            self.student = self.seconds()
        if now.phase == "predict":
            self.last = self.seconds()
        elif math.isnan(self.last):
            self.labels = self.seconds()


class OwnMemory:
    """The most resident memory that was no page of a file, in MB, looked at twenty times a second."""

    def __init__(self) -> None:
        self.most, self._ended = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *reason: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            status = Path("/proc/self/status").read_text()
            self.most = max(self.most, int(status.split("RssAnon:")[1].split()[0]) / 1024)


def first_config(folder: Path, backbone: str) -> RunConfig:
    name = str(folder / "tiny") if backbone == "tiny" else "minilm"
    overlay = {
        "task": str(folder / "task.yaml"), "run_dir": str(folder / "run"),
        "data": {"labelled": str(folder / "labelled.jsonl"), "unlabelled": [str(folder / "corpus")]},
        "backbone": {"name": name, "precision": "fp32", "device": "cpu"},
    }  # fmt: skip
    return build_config("fast", overlay)


def size(folder: Path) -> float:
    """MB of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def grown(found: dict[int, dict[str, Any]]) -> list[str]:
    """What is told of growth, a line each."""
    large = sorted(rows for rows in found if rows >= LEAST)
    lines = []
    pairs = list(pairwise(large))
    for one, two in [*pairs, *([(large[0], large[-1])] if len(pairs) > 1 else [])]:
        power, cpu = (math.log(found[two][of] / found[one][of]) / math.log(two / one) for of in ("whole", "cpu"))
        told = f"seconds grow by the power of {power:.2f}, those of CPU by {cpu:.2f} (goal {GOAL_EXPONENT})"
        lines.append(f"{one:,} to {two:,} rows: {told}")
    if pairs:
        first, last = found[large[0]], found[large[-1]]
        more = {name: last[name] - first[name] for name in ("peak", "own")}
        lines.append(f"memory: {more['peak']:+.0f} MB, its own {more['own']:+.0f} MB (goal within {GOAL_MB})")
    for rows, each in found.items():
        parts = [(each["continued"][name], each[name]) for name in ("before", "student")]
        first, student = (f"{took:.1f} of {whole:.1f} s, {took / whole:.0%}" for took, whole in parts)
        lines.append(f"{rows:,} rows, then 1 % more, before the first step: {first} (goal {GOAL_SHARE:.0%})")
        lines.append(f"{rows:,} rows, then 1 % more, before the first step of a student: {student}")
    return lines


if __name__ == "__main__":
    main()
