"""The curve of the product: accuracy by the number of labels and by the size of the pool, beside the peers.

    python benchmarks/growth.py DATA [--draws 1 2 3] [--only sst2 agnews ...]
    python benchmarks/growth.py DATA --table [--picture FILE]

Rows as in peers.py, labelled ones balanced. Four tasks with 10, 30 and 100 labels on a pool of 3,000; two of them with
30 labels on pools of 300 and of all rows. A figure that is there is not made again. The picture has a line for each
way and a panel for each task.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure
from peer_data import POOL, SHOTS, draw_of
from peers import PEERS, parsed, scored, task_of
from real import OUT

from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train

TASKS, OF_POOLS = ("sst2", "subj", "agnews", "trec"), ("agnews", "trec")
LABELS, POOLS = (10, 30, 100), (300, None)
# By what they are called in the table and the picture, and the colours of the report's plots.
WAYS = {
    "labelled_only": ("labels and names alone", "#E69F00"), "final": ("listflow, six rounds", "#0072B2"),
    "lr": ("logistic regression", "#D55E00"), "spreading": ("label spreading", "#009E73"),
    "self-training": ("self-training", "#CC79A7"),
}  # fmt: skip


def settings(task: str) -> Iterator[tuple[int, int | None]]:
    """(labels, rows of the pool) that are measured of a task."""
    yield from ((count, POOL) for count in LABELS)
    if task in OF_POOLS:
        yield from ((SHOTS, rows) for rows in POOLS)


def figures_of(data: Path, task: str, number: int, shots: int, pool: int | None) -> dict[str, Any]:
    """Accuracy of every way on a draw."""
    rows = draw_of(data, task, number, shots, pool)
    files = {"labelled": str(rows.labelled), "unlabelled": [str(rows.pool)], "test": str(rows.test)}
    folder = OUT / "growth" / _name(task, number, shots, pool)
    given = {"task": task_of(task), "seed": number, "run_dir": str(folder), "data": files}
    report = self_train(build_config("fast", given))
    assert report.final is not None
    assert report.labelled_only is not None
    own = {"labelled_only": report.labelled_only.accuracy, "final": report.final.accuracy}
    return own | {way: scored(rows, peer)["accuracy"] for way, peer in PEERS.items()}


def means(task: str, shots: int, pool: int | None) -> dict[str, float]:
    """By way, the mean over the draws that are there, in percent."""
    paths = (OUT / "growth").glob(_name(task, "*", shots, pool) + ".json")
    found = [json.loads(path.read_text()) for path in paths]
    return {way: 100 * mean(figures[way] for figures in found) for way in WAYS} if found else {}


def table() -> None:
    print("| task | labels | pool | " + " | ".join(name for name, _ in WAYS.values()) + " |")
    print("|---" * (len(WAYS) + 3) + "|")
    for task in TASKS:
        for shots, pool in settings(task):
            if told := means(task, shots, pool):
                cells = " | ".join(f"{told[way]:.1f}" for way in WAYS)
                print(f"| {task} | {shots} | {pool or 'all'} | {cells} |")


def picture(path: Path) -> None:
    """Accuracy over the number of labels, a panel for each task."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(TASKS)), TASKS, strict=True):
        points = {count: told for count in LABELS if (told := means(task, count, POOL))}
        for way, (name, colour) in WAYS.items():
            axes.plot(list(points), [told[way] for told in points.values()], marker="o", label=name, color=colour)
        axes.set_xscale("log")
        axes.set_xticks(LABELS, [str(count) for count in LABELS])
        axes.set_xticks([], minor=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(task)
        axes.set_xlabel("labels")
    figure.axes[0].set_ylabel("accuracy (%)")
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(WAYS), frameon=False
    )
    figure.savefig(path, dpi=110)


def _name(task: str, number: int | str, shots: int, pool: int | None) -> str:
    return f"{task}-{number}-{shots}-{pool or 'all'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--draws", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--picture", type=Path)
    options = parsed(parser)
    for number in () if options.table else options.draws:
        for task in options.only:
            for shots, pool in settings(task):
                path = OUT / "growth" / f"{_name(task, number, shots, pool)}.json"
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    found = figures_of(options.data, task, number, shots, pool)
                    path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
                    print(f"{path.stem}: {100 * found['final']:.1f}", flush=True)
    table()
    if options.picture:
        picture(options.picture)


if __name__ == "__main__":
    main()
