"""What stands before the first training step of `listflow run`, in one version beside another; and what a server costs.

    python benchmarks/first_step.py BEFORE AFTER DATA [--task sst2] [--draw 1] [--repeats 3] [--whole]

BEFORE and AFTER are the python of two installations (.venv/bin/python of two checkouts). Both start `listflow run` on a
draw of `peers.py` (30 labelled rows, 3,000 unlabelled ones, 1,000 test rows), without a configured server, on two
threads; the clock is read when the plan is shown and when the first step is done, and the run is ended there. They
take turns. With `--whole`, AFTER makes whole runs instead: by the command, and by `self_train` in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from peer_data import Draw, draw_of

COMMAND = "from listflow.flows.cli.main import main; main()"
FROM_PYTHON = """\
import sys
from listflow import build_config, self_train
labelled, pool, test, folder = sys.argv[1:]
self_train(build_config("fast", {"task": "TASK", "run_dir": folder, "data": {
    "labelled": labelled, "unlabelled": [pool], "test": test}}))
"""
PLAN, STEP = "kept in", "prompt-tune the teacher"
SIDES = ("before", "after")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--draw", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--whole", action="store_true")
    given = parser.parse_args()
    rows = draw_of(given.data, given.task, given.draw)
    (whole if given.whole else compare)(given, rows)


def compare(given: argparse.Namespace, rows: Draw) -> None:
    """Prints the seconds to the plan and to the first step, by the clock and of processors, of each side."""
    sides = {"before": given.before.absolute(), "after": given.after.absolute()}
    found: dict[str, list[list[float]]] = {side: [] for side in sides}
    for turn in range(given.repeats):
        for side in SIDES if turn % 2 else SIDES[::-1]:
            with TemporaryDirectory() as folder:
                found[side].append(to_first_step([str(sides[side]), "-P", "-c", COMMAND, *_arguments(rows, folder)]))
    for place, measure in enumerate(("to the plan, s", "to the first step, s", "CPU of that, s")):
        before, after = ([one[place] for one in found[side]] for side in SIDES)
        ratio = median(b / a for a, b in zip(before, after, strict=True))
        print(f"{measure:22} {median(before):6.1f} {median(after):6.1f}   {ratio:.2f} x")
    print(f"{rows.name}, {given.repeats} turns, load {os.getloadavg()[0]:.1f}")


def to_first_step(command: Sequence[str]) -> list[float]:
    """Seconds to the plan, to the first step, and of processors until then; the run is ended after it."""
    before, began = _cpu(), time.perf_counter()
    with subprocess.Popen(
        command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        times = list(_seen(process.stdout, began))
        process.terminate()
        process.communicate()
    if len(times) < 2:
        raise SystemExit(f"{command[0]}: the run showed no {STEP!r}")
    return [*times, _cpu() - before]


def _seen(lines: Iterable[str], began: float) -> Iterator[float]:
    wanted = iter((PLAN, STEP))
    words = next(wanted)
    for line in lines:
        if words in line:
            yield time.perf_counter() - began
            words = next(wanted, "")
            if not words:
                return


def whole(given: argparse.Namespace, rows: Draw) -> None:
    """Prints the seconds of whole runs of AFTER, by the command and from Python, from the process's start on."""
    python, taken = str(given.after.absolute()), dict[str, list[float]]()
    program = FROM_PYTHON.replace("TASK", rows.task)
    files = [str(path) for path in (rows.labelled, rows.pool, rows.test)]
    for turn in range(given.repeats):
        for side in ("command", "Python")[:: 1 if turn % 2 else -1]:
            with TemporaryDirectory() as folder:
                own = [COMMAND, *_arguments(rows, folder)] if side == "command" else [program, *files, f"{folder}/run"]
                began = time.perf_counter()
                subprocess.run([python, "-P", "-c", *own], env=_environment(), check=True, capture_output=True)
                taken.setdefault(side, []).append(time.perf_counter() - began)
    apart = median(one - other for one, other in zip(taken["command"], taken["Python"], strict=True))
    told = ", ".join(f"{side} {median(seconds):.1f} s" for side, seconds in taken.items())
    print(f"whole runs: {told}; apart {apart:+.1f} s; {given.repeats} turns, load {os.getloadavg()[0]:.1f}")


def _arguments(rows: Draw, folder: str) -> list[str]:
    files = ["--labelled", str(rows.labelled), "--unlabelled", str(rows.pool), "--test", str(rows.test)]
    return ["run", "--task", rows.task, *files, "--run-dir", f"{folder}/run"]


def _environment() -> dict[str, str]:
    return os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", "PYTHONUNBUFFERED": "1"}


def _cpu() -> float:
    """Seconds of processors that ended children took."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


if __name__ == "__main__":
    main()
