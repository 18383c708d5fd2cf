"""Uneven pools: the classes' shares that a run estimates, the true ones, and what it ends at beside the peers.

    python benchmarks/shares.py DATA [--draws 1 2 3] [--only sms_spam subj:9 ...]
    python benchmarks/shares.py DATA --table

Rows as in peers.py with balanced labels; `subj:9` is cut so that, of pool and test alike, the first class in the order
of names is nine times as frequent as each other one. Estimated are the shares that the text teacher sees in the pool.
A figure that is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from peer_data import Draw, Line, draw_of, lines_of
from peers import PEERS, parsed, scored, task_of
from real import OUT

from listflow.data.rows import text_key
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train

CASES = (
    "sms_spam", "mpqa", "banking77", "subj:1", "subj:3", "subj:9", "agnews:1", "agnews:3", "agnews:9",
)  # fmt: skip


def rows_of(data: Path, case: str, number: int) -> Draw:
    """The draw of the case, its pool and test rows cut to the ratio that its name says."""
    task, _, ratio = case.partition(":")
    rows = draw_of(data, task, number)
    if not ratio:
        return rows
    folder = OUT / "peers" / "rows" / f"{task}-{number}-{ratio}"
    folder.mkdir(parents=True, exist_ok=True)
    truth = _truth(data, task)
    for path in (rows.pool, rows.test):
        kept = _cut(lines_of(path), truth, int(ratio), number)
        (folder / path.name).write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")
    return replace(rows, task=case, pool=folder / rows.pool.name, test=folder / rows.test.name)


def _truth(data: Path, task: str) -> dict[str, str]:
    lines = [line for part in ("train", "test", "dev") if (path := data / task / f"{part}.jsonl").exists()
             for line in lines_of(path)]  # fmt: skip
    return {text_key(line["text"], None): str(line["label"]) for line in lines}


def _cut(lines: list[Line], truth: dict[str, str], ratio: int, seed: int) -> list[Line]:
    """As many rows as the ratio leaves, in their order."""
    labels = [truth[text_key(line["text"], None)] for line in lines]
    places = {label: [i for i, own in enumerate(labels) if own == label] for label in sorted(set(labels))}
    first, *others = places
    rare = min(len(places[first]) // ratio, *(len(places[label]) for label in others))
    counts = {first: rare * ratio} | dict.fromkeys(others, rare)
    drawn = random.Random(seed)
    kept = sorted(i for label, count in counts.items() for i in drawn.sample(places[label], count))
    return [lines[i] for i in kept]


def figures_of(data: Path, case: str, number: int) -> dict[str, Any]:
    """True and estimated shares by label, and accuracies."""
    rows = rows_of(data, case, number)
    task = case.partition(":")[0]
    files = {"labelled": str(rows.labelled), "unlabelled": [str(rows.pool)], "test": str(rows.test)}
    folder = OUT / "shares" / f"{case.replace(':', '-')}-{number}"
    given = {"task": task_of(task), "seed": number, "run_dir": str(folder), "data": files}
    report = self_train(build_config("fast", given))
    text = next(view for view in report.views if view.view == "text")
    assert text.teacher is not None
    assert report.labelled_only is not None
    assert report.final is not None
    truth = _truth(data, task)
    labels = Counter(truth[text_key(line["text"], None)] for line in lines_of(rows.pool))
    return {
        "case": case, "draw": number,
        "true": {label: count / labels.total() for label, count in sorted(labels.items())},
        "estimated": text.teacher.pool_shares,
        "labelled_only": report.labelled_only.accuracy, "final": report.final.accuracy,
        "start": report.start.accuracy if report.start else None,
        **{way: scored(rows, peer)["accuracy"] for way, peer in PEERS.items()},
    }  # fmt: skip


def table() -> None:
    """Means over the draws: the largest class's share, how far apart the shares are, and accuracies."""
    keys = ("labelled_only", "start", "final", *PEERS)
    print("| case | largest class: true, estimated | apart (TV) | " + " | ".join(keys) + " |")
    print("|---" * (len(keys) + 3) + "|")
    for case in CASES:
        kept = [json.loads(path.read_text()) for path in sorted(_folder().glob(f"{case.replace(':', '-')}-*.json"))]
        if not kept:
            continue
        most = [max(f["true"], key=f["true"].__getitem__) for f in kept]
        true = mean(f["true"][label] for f, label in zip(kept, most, strict=True))
        said = mean(f["estimated"][label] for f, label in zip(kept, most, strict=True))
        apart = mean(
            sum(abs(f["estimated"][label] - f["true"].get(label, 0)) for label in f["estimated"]) / 2 for f in kept
        )
        cells = [f"{100 * mean(f[key] for f in kept):.1f}" for key in keys]
        print(f"| {case} | {100 * true:.1f} {100 * said:.1f} | {100 * apart:.1f} | " + " | ".join(cells) + " |")


def _folder() -> Path:
    return OUT / "shares"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--draws", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", default=list(CASES), choices=CASES)
    options = parsed(parser)
    for number in () if options.table else options.draws:
        for case in options.only:
            path = _folder() / f"{case.replace(':', '-')}-{number}.json"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(figures_of(options.data, case, number), indent=1) + "\n", "utf-8")
                print(f"{case} {number} is made", flush=True)
    table()


if __name__ == "__main__":
    main()
