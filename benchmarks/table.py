"""The runs of benchmarks/real.py side by side: labelled-only and final accuracy of every stage and head, and its size.

    python benchmarks/table.py [NAME ...]

Reads benchmarks/out/NAME/<task>-<draw>.json. Mean over the draws that are there, sample standard deviation in brackets.
"""

from __future__ import annotations

import argparse
import json
from statistics import mean, stdev

from real import OUT, TASKS

NAMES = ("list", "houlsby", "lora", "mam", "bitfit", "ptuning", "ipt", "linear", "ytuning")


def spread(values: list[float]) -> str:
    """``mean (sd)``, in percent."""
    shown = f"{100 * mean(values):.1f}"
    return f"{shown} ({100 * stdev(values):.1f})" if len(values) > 1 else shown


def line(name: str) -> str:
    """One row: trainable parameters (of the first run), draws, both accuracies by task and on the mean, seconds."""
    cells, before, after, seconds, draws = [], [], [], [], set()
    for task in TASKS:
        runs = [json.loads(path.read_text()) for path in sorted((OUT / name).glob(f"{task}-*.json"))]
        if not runs:
            cells.append("-")
            continue
        ones, twos = ([run[key] for run in runs] for key in ("labelled_only", "final"))
        cells.append(f"{spread(ones)} > {spread(twos)}")
        before.append(mean(ones))
        after.append(mean(twos))
        seconds += [run["seconds"] for run in runs]
        draws.add(len(runs))
    reports = sorted((OUT / name).glob("*/report.json"))
    size = f"{json.loads(reports[0].read_text())['trainable_parameters']:,}" if reports else "-"
    means = f"{100 * mean(before):.1f} > {100 * mean(after):.1f}" if before else "-"
    spent = f"{mean(seconds):.0f}" if seconds else "-"
    return f"| {name} | {size} | {'/'.join(map(str, sorted(draws)))} | " + " | ".join(cells) + f" | {means} | {spent} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES)
    print(f"| | trainable | draws | {' | '.join(TASKS)} | mean | seconds |")
    print("|---" * (len(TASKS) + 5) + "|")
    for name in parser.parse_args().names:
        print(line(name))


if __name__ == "__main__":
    main()
