"""How long `listflow --help` and `listflow status` take, with one installation beside another.

Usage: python benchmarks/startup.py BEFORE AFTER [--repeats 20] [--folder FOLDER]

BEFORE and AFTER are `listflow` commands (.venv/bin/listflow of two checkouts). They take turns, and which one begins a
turn changes, so that what else the machine does falls on both. FOLDER is where `status` looks for runs; without it
there are none. Prints medians of wall and CPU time, and how AFTER is to BEFORE: the median of the turns' ratios, and in
brackets the ratio of the medians.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

COMMANDS = (("--help",), ("status",))


@dataclass(frozen=True)
class Taken:
    """Seconds of one command: by the clock, and of processors."""

    wall: float
    cpu: float


def taken(command: Path, arguments: tuple[str, ...], folder: Path) -> Taken:
    """One start of ``command`` in ``folder``; CalledProcessError where it does not end well."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    subprocess.run([command, *arguments], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    return Taken(ended - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def compare(sides: tuple[Path, Path], arguments: tuple[str, ...], folder: Path, repeats: int) -> list[list[Taken]]:
    """``repeats`` starts of each side, in turns; a first of each, for bytecode and cached files, is left out."""
    found: list[list[Taken]] = [[], []]
    for turn in range(-1, repeats):
        for side in (0, 1) if turn % 2 else (1, 0):
            one = taken(sides[side], arguments, folder)
            if turn >= 0:
                found[side].append(one)
    return found


def line(name: str, what: str, before: list[float], after: list[float]) -> str:
    paired = median(b / a for a, b in zip(before, after, strict=True))
    medians = median(before), median(after)
    seconds = " ".join(f"{value * 1000:7.0f} ms" for value in medians)
    return f"{name:10} {what:5} {seconds}   {paired:.3f} x ({medians[1] / medians[0]:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    sides = given.before.absolute(), given.after.absolute()
    with tempfile.TemporaryDirectory() as empty:
        folder = given.folder or Path(empty)
        print(f"{'':16} {'before':>10} {'after':>10}   after / before, median of {given.repeats} turns")
        for arguments in COMMANDS:
            before, after = compare(sides, arguments, folder, given.repeats)
            for what in ("wall", "cpu"):
                print(line(arguments[0], what, *([getattr(one, what) for one in side] for side in (before, after))))


if __name__ == "__main__":
    main()
