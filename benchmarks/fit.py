"""What ``TextClassifier.fit`` costs beside the run of `listflow run` on the same rows: seconds and peak memory.

    python benchmarks/fit.py [LABELLED UNLABELLED] [--task demo] [--repeats 3]

Files are jsonl with `text` and `label`; without any, the rows of the demo. The run is made from the files and without
a Prefect server, the fit from lists of their texts; nothing is set but the task. Each is a process of one thread from
its first import on, and both take turns, so that what else the machine does falls on both. Prints medians, and how the
fit differs from the run: the median of the turns' differences. Ends with 1 where the two give other probabilities, or
the fit takes more than 5 seconds longer or 5 % more memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

DEMO = Path(__file__).resolve().parents[1] / "data" / "demo"
MEASURES = ("call, s", "process, s", "process, CPU s", "peak, MB")
MOST_SECONDS, MOST_MEMORY = 5.0, 1.05
SIDES = ("run", "fit")
ASKED = 50  # rows whose probabilities are compared
Taken = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labelled", type=Path, nargs="?", default=DEMO / "labelled.jsonl")
    parser.add_argument("unlabelled", type=Path, nargs="?", default=DEMO / "unlabelled.jsonl")
    parser.add_argument("--task", default="demo")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps((_fit if given.side == "fit" else _run)(given)))
        return
    raise SystemExit(compare(given))


def compare(given: argparse.Namespace) -> int:
    """Prints what each side takes; 1 where the fit is not within the limits, or is not the same run."""
    found: dict[str, list[Taken]] = {side: [] for side in SIDES}
    for turn in range(given.repeats):
        for side in SIDES if turn % 2 else reversed(SIDES):
            found[side].append(taken(side, given))
    print(f"{given.labelled.name} and {given.unlabelled.name}, {given.repeats} turns, load {os.getloadavg()[0]:.1f}")
    print(f"  {'':16} {'run':>9} {'fit':>9}   fit - run")
    for measure in MEASURES:
        run, fit = ([one[measure] for one in found[side]] for side in SIDES)
        print(f"  {measure:16} {median(run):9.1f} {median(fit):9.1f}   {_more(run, fit):+9.1f}")
    same = len({json.dumps(one["soft"]) for side in SIDES for one in found[side]}) == 1
    print(f"  the same probabilities: {same}")
    seconds, memory = (([one[name] for one in found[side]] for side in SIDES) for name in ("process, s", "peak, MB"))
    run, fit = memory
    return int(not same or _more(*seconds) > MOST_SECONDS or median(fit) > median(run) * MOST_MEMORY)


def taken(side: str, given: argparse.Namespace) -> Taken:
    """One side in a new process."""
    command = [sys.executable, __file__, str(given.labelled), str(given.unlabelled), "--task", given.task]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([*command, "--side", side], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout.splitlines()[-1]) | {"process, s": seconds, "process, CPU s": cpu}


def _run(given: argparse.Namespace) -> Taken:
    from listflow import Predictor, build_config, self_train

    data = {"labelled": str(given.labelled), "unlabelled": [str(given.unlabelled)]}
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        self_train(build_config("fast", {"task": given.task, "data": data, "run_dir": f"{folder}/run"}))
        seconds = time.perf_counter() - began
        peak = _peak()
        model = Predictor.open(f"{folder}/run")
        order = [model.labels.index(label) for label in sorted(model.labels)]
        return _told(seconds, peak, model.probabilities(_texts(given.unlabelled)[:ASKED])[:, order].tolist())


def _fit(given: argparse.Namespace) -> Taken:
    from listflow import TextClassifier

    labels = [json.loads(line)["label"] for line in given.labelled.read_text("utf-8").splitlines()]
    texts, pool = _texts(given.labelled), _texts(given.unlabelled)
    began = time.perf_counter()
    model = TextClassifier(pool, task=given.task, verbose=False).fit(texts, labels)
    seconds = time.perf_counter() - began
    return _told(seconds, _peak(), model.predict_proba(pool[:ASKED]).tolist())


def _texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _told(seconds: float, peak: float, soft: list[list[float]]) -> Taken:
    return {"call, s": seconds, "peak, MB": peak, "soft": soft}


def _more(run: list[float], fit: list[float]) -> float:
    return median(b - a for a, b in zip(run, fit, strict=True))


if __name__ == "__main__":
    main()
