"""What each part of the default adds: whole runs without it, on draws for choosing, by accuracy of the final model.

    python benchmarks/parts.py DATA [--tasks sst2 trec agnews mpqa mnli] [--draws 11 12 13] [--parts names pool ...]
    python benchmarks/parts.py DATA --table

`whole` is the default (its row says labels alone, start and final: the rounds are the difference of the last two),
`prompt view` and `text view` are one view by itself, `names`, `pool`, `middle layer` and `meta weights` the default
without that part: names and pool where the text teacher is made, meta weights of both views (the warm-up, which has
equal weights, is then the whole of the steps). What the frozen layers give of the texts of a draw is computed once for
all parts, so that seconds are not compared here. A figure that is there is not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any
from unittest.mock import patch

from peers import by_draw, one_figure, parsed
from real import OUT

from listflow.pipeline.method import label_vectors

TASKS = ("sst2", "trec", "agnews", "mpqa", "mnli")
KEPT = {"backbone": {"cache_dir": str(OUT / "peers" / "kept"), "cache_gb": 20.0}}
NO_WEIGHTS = {"student": {"warmup": 1.0}}


@contextmanager
def _without_names() -> Iterator[None]:
    few = {name: tuple(r for r in getattr(label_vectors, name) if not r.names) for name in ("STARTS", "RECIPES")}
    with patch.multiple(label_vectors, **few):
        yield


@contextmanager
def _without_pool() -> Iterator[None]:
    alone = {"RECIPES": label_vectors.STARTS, "FOR_PAIRS": label_vectors.STARTS[:1]}
    with patch.multiple(label_vectors, **alone):
        yield


@dataclass(frozen=True)
class Part:
    """What is set, and what of the product is changed, while runs go without it."""

    overlay: dict[str, Any] = field(default_factory=dict)
    changed: Callable[[], AbstractContextManager[None]] = nullcontext


PARTS = {
    "whole": Part(),
    "prompt view": Part({"stage": {"kind": "list"}}),
    "text view": Part({"head": {"kind": "prototypes"}}),
    "names": Part(changed=_without_names),
    "pool": Part(changed=_without_pool),
    "middle layer": Part({"second": {"head": {"middle": 0.0}}}),
    "meta weights": Part(NO_WEIGHTS | {"second": NO_WEIGHTS}),
}


def table(tasks: list[str], draws: list[int]) -> None:
    """Mean over the draws that are there: labels alone > start > final."""
    print("| | " + " | ".join(tasks) + " | mean of final |")
    print("|---" * (len(tasks) + 2) + "|")
    for part in PARTS:
        found = {task: list(by_draw(task, _name(part), "task", draws).values()) for task in tasks}
        cells = [_cell(figures) for figures in found.values()]
        finals = [100 * mean(f["accuracy"] for f in figures) for figures in found.values() if figures]
        print(f"| {part} | " + " | ".join(cells) + f" | {mean(finals):.1f} |" if finals else f"| {part} | - |")


def _cell(figures: list[dict[str, Any]]) -> str:
    keys = ("labelled_only", "start", "accuracy")
    told = [[f[key] for f in figures if f[key] is not None] for key in keys]
    return " > ".join(f"{100 * mean(values):.1f}" for values in told if values) or "-"


def _name(part: str) -> str:
    return "parts/" + part.replace(" ", "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--draws", nargs="+", type=int, default=[11, 12, 13])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    options = parsed(parser)
    for name in () if options.table else options.parts:
        part = PARTS[name]
        given = argparse.Namespace(data=options.data, name=_name(name), overlay=part.overlay | KEPT, setfit_python="")
        with part.changed():
            for task in options.tasks:
                for number in options.draws:
                    one_figure(given, task, number, "task")
    table(options.tasks, options.draws)


if __name__ == "__main__":
    main()
