"""What people would use instead, and listflow, on the same draws and the same encoder: accuracy, macro F1, seconds.

    python benchmarks/peers.py DATA [--tasks sst2 ...] [--draws 1 2 3 4 5] [--ways lr files ...]
        [--setfit-python PYTHON] [--name NAME --set KEY=VALUE ...]
    python benchmarks/peers.py DATA --table

K = 30 labelled rows (one a class where there are more classes), a pool of 3,000 train rows without them, 1,000 test
rows without those that repeat a labelled text. Ways: `lr`, `spreading`, `self-training` on sentence embeddings,
`setfit` on draws 1 and 2, `files` (listflow with nothing but the files) and `task` (with a task file, where there is
one). A figure that is there is not made again. `--name` keeps the figures of another version or setting of listflow
apart. Draws from 11 upward are for choosing: they are scored on dev rows.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from peer_data import TASKS, Draw, draw_of, lines_of
from peer_models import label_spreading, logistic_regression, self_training, setfit
from real import OUT, overlay_of
from sklearn.metrics import accuracy_score, f1_score

from listflow.data.task import builtin_tasks
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train

PEERS: dict[str, Callable[[Draw], list[str]]] = {
    "lr": logistic_regression, "spreading": label_spreading, "self-training": self_training,
}  # fmt: skip
WAYS = (*PEERS, "setfit", "files", "task")
SETFIT_DRAWS = (1, 2)
OWN_TASKS = Path(__file__).parent / "tasks"
Figures = dict[str, Any]


def measured(rows: Draw, way: str, options: argparse.Namespace) -> Figures | None:
    """The figures of one way on one draw; None where it does not apply."""
    if way in PEERS:
        return scored(rows, PEERS[way])
    if way == "setfit":
        wanted = options.setfit_python and rows.number in SETFIT_DRAWS
        return scored(rows, lambda given: setfit(given, options.setfit_python)) if wanted else None
    task = task_of(rows.task) if way == "task" else None
    return _ours(rows, way, task, options) if way == "files" or task else None


def task_of(name: str) -> str | None:
    """A built-in task, or a task file of this benchmark; None for a task whose labels say all."""
    own = OWN_TASKS / f"{name}.yaml"
    return name if name in builtin_tasks() else str(own) if own.exists() else None


def scored(rows: Draw, way: Callable[[Draw], list[str]]) -> Figures:
    """Accuracy, macro F1 and seconds of what ``way`` says of the test rows."""
    began = time.monotonic()
    found, gold = way(rows), [line["label"] for line in lines_of(rows.test)]
    seconds = time.monotonic() - began
    f1 = f1_score(gold, found, average="macro", zero_division=0)
    return {"accuracy": accuracy_score(gold, found), "macro_f1": f1, "seconds": seconds}


def _ours(rows: Draw, way: str, task: str | None, options: argparse.Namespace) -> Figures:
    files = {"labelled": str(rows.labelled), "unlabelled": [str(rows.pool)], "test": str(rows.test)}
    folder = OUT / "peers" / options.name / f"{rows.name}-{way}"
    given = {"task": task, "seed": rows.number, "run_dir": str(folder), "data": files}
    began = time.monotonic()
    report = self_train(build_config("fast", options.overlay, given))
    seconds = time.monotonic() - began
    assert report.final is not None
    assert report.labelled_only is not None
    return {
        "accuracy": report.final.accuracy, "macro_f1": report.final.macro_f1, "seconds": seconds,
        "labelled_only": report.labelled_only.accuracy, "start": report.start.accuracy if report.start else None,
        "rounds": [record.student.accuracy for record in report.rounds if record.student],
        "weights": {view.view: view.weight for view in report.views}, "calibration_error": report.final.ece,
        "estimate": report.estimate and [report.estimate.low, report.estimate.accuracy, report.estimate.high],
    }  # fmt: skip


def table(name: str, draws: Sequence[int], key: str = "accuracy") -> None:
    """Means of a figure over those of ``draws`` that are there, with the sample deviation, by task and way."""
    print(f"\n| {key} | " + " | ".join(WAYS) + " |")
    print("|---" * (len(WAYS) + 1) + "|")
    over: dict[str, list[float]] = {way: [] for way in WAYS}
    for task in TASKS:
        cells = []
        for way in WAYS:
            scale = 1 if key == "seconds" else 100
            values = [scale * figures[key] for figures in by_draw(task, name, way, draws).values()]
            if values:
                over[way].append(mean(values))
            cells.append(f"{mean(values):.1f} ({stdev(values):.1f})" if len(values) > 1 else _one(values))
        print(f"| {task} | " + " | ".join(cells) + " |")
    print("| mean | " + " | ".join(f"{mean(v):.1f} of {len(v)}" if v else "-" for v in over.values()) + " |")


def goals(name: str, draws: Sequence[int], ways: Sequence[str]) -> None:
    """What each task gains over labels alone, over the start of the rounds and over its best peer, draw by draw.

    An error is the standard error of the paired differences. Best is the peer of ``ways`` with the highest mean.
    """
    columns = (
        "labels alone",
        "start",
        "final",
        "final - labels (error)",
        "final - start",
        "best peer",
        "final - it (error)",
    )
    print("\n| task | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    gained = []
    for task in TASKS:
        ours = by_draw(task, name, "task", draws) or by_draw(task, name, "files", draws)
        if ours:
            values = [[100 * f[key] for f in ours.values()] for key in ("labelled_only", "start", "accuracy")]
            gained.append([mean(each) for each in values])
            of_labels = _differences(values[2], values[0])
            of_start = f"{gained[-1][2] - gained[-1][1]:+.1f}"
            told = [*(f"{value:.1f}" for value in gained[-1]), of_labels, of_start, *_best_peer(ours, task, name, ways)]
            print(f"| {task} | " + " | ".join(told) + " |")
    if gained:
        alone, start, final = (mean(each) for each in zip(*gained, strict=True))
        told = [
            f"{alone:.1f}",
            f"{start:.1f}",
            f"{final:.1f}",
            f"{final - alone:+.1f}",
            f"{final - start:+.1f}",
            "",
            "",
        ]
        print("| mean | " + " | ".join(told) + " |")


def honesty(name: str, draws: Sequence[int], way: str) -> None:
    """How right the runs say they are beside how right they were, and how sure; of runs that say it."""
    print(f"\n| {way} | estimate - accuracy | in the 90 % interval | its width | calibration error |")
    print("|---" * 5 + "|")
    every = []
    for task in TASKS:
        found = [f for f in by_draw(task, name, way, draws).values() if "calibration_error" in f]
        every += found
        if found:
            print(_honest(task, found))
    if every:
        print(_honest("all", every))


def _honest(what: str, figures: list[Figures]) -> str:
    told = [(f["accuracy"], *f["estimate"]) for f in figures if f["estimate"]]
    error = f"{mean(f['calibration_error'] for f in figures):.3f}"
    if not told:
        return f"| {what} | - | - | - | {error} |"
    apart = mean(100 * (middle - truth) for truth, _, middle, _ in told)
    inside = sum(low <= truth <= high for truth, low, _, high in told)
    width = mean(100 * (high - low) for _, low, _, high in told)
    return f"| {what} | {apart:+.1f} | {inside} of {len(told)} | {width:.1f} | {error} |"


def _best_peer(ours: dict[int, Figures], task: str, name: str, ways: Sequence[str]) -> list[str]:
    """(its name and mean, what is gained over it), on the draws that both have."""
    asked = [way for way in (*PEERS, "setfit") if way in ways]
    peers = {way: found for way in asked if (found := by_draw(task, name, way, list(ours)))}
    if not peers:
        return ["-", "-"]
    best = max(peers, key=lambda way: mean(figures["accuracy"] for figures in peers[way].values()))
    pairs = [(100 * ours[draw]["accuracy"], 100 * its["accuracy"]) for draw, its in peers[best].items()]
    mine, its = zip(*pairs, strict=True)
    return [f"{best} {mean(its):.1f}", _differences(mine, its)]


def _differences(values: Sequence[float], others: Sequence[float]) -> str:
    apart = [one - other for one, other in zip(values, others, strict=True)]
    error = f" ({stdev(apart) / len(apart) ** 0.5:.1f})" if len(apart) > 1 else ""
    return f"{mean(apart):+.1f}{error}"


def by_draw(task: str, name: str, way: str, draws: Sequence[int]) -> dict[int, Figures]:
    """By draw, the figures that are there."""
    paths = {draw: _folder(name, way) / f"{task}-{draw}-{way}.json" for draw in draws}
    return {draw: json.loads(path.read_text()) for draw, path in paths.items() if path.exists()}


def _one(values: list[float]) -> str:
    return f"{values[0]:.1f}" if values else "-"


def _folder(name: str, way: str) -> Path:
    """Peers know nothing of ``name``, which is a version of listflow."""
    return OUT / "peers" / (name if way in {"files", "task"} else "others")


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What was asked for, with the options of every bench of runs; torch has its threads, and no hub is asked."""
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="print the table of what is there and stop")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(options.threads)
    return options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--draws", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--name", default="fast", help="what the runs of listflow are kept as")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--setfit-python", default="", help="python of an environment with setfit==1.2.0")
    options = parsed(parser)
    options.overlay = overlay_of(options.set)
    if "setfit" in options.ways and not (options.setfit_python or options.table):
        print("SetFit is left out: name the python of an environment that has it with --setfit-python.")
    for number in () if options.table else options.draws:
        for task in options.tasks:
            for way in options.ways:
                one_figure(options, task, number, way)
    for key in ("accuracy", "macro_f1", "seconds"):
        table(options.name, options.draws, key)
    goals(options.name, options.draws, options.ways)
    for way in ("files", "task"):
        honesty(options.name, options.draws, way)


def one_figure(options: argparse.Namespace, task: str, number: int, way: str) -> None:
    """Makes a figure that is not there; ``options`` has data, name, overlay and setfit_python."""
    path = _folder(options.name, way) / f"{task}-{number}-{way}.json"
    if path.exists():
        return
    figures = measured(draw_of(options.data, task, number), way, options)
    if figures is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"task": task, "draw": number, "way": way, **figures}, indent=1) + "\n", "utf-8")
        print(f"{task} {number} {way}: {100 * figures['accuracy']:.1f} in {figures['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
