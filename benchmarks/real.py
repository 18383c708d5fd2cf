"""Real data sets, K = 30, five draws each: labelled-only teacher, final student, and the cheap baseline.

    python benchmarks/real.py DATA [--tasks sst2 ...] [--draws 1 2 3 4 5] [--preset fast] [--set key=value ...]
    python benchmarks/real.py DATA --table

DATA holds <task>/train.jsonl and <task>/test.jsonl, and for tasks with published draws
list_splits/<task>/30-<draw>/train.jsonl; other tasks get balanced draws of their train file. The unlabelled pool is
the train file without the labelled rows. A finished run is kept in benchmarks/out and not done again. The
baseline is scikit-learn's logistic regression on the plain sentence embeddings of the embedded backbone's package.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from listflow import build_config, self_train
from listflow.data.documents import parse_yaml
from listflow.data.files import file_digest
from listflow.data.rows import Row, read_rows
from listflow.data.splits import draw
from listflow.data.task import load_task
from listflow.pipeline.backbone import pretrained

TASKS = ("sst2", "subj", "mpqa", "agnews", "sms_spam")
SHOTS = 30
OUT = Path(__file__).parent / "out"


def labelled_file(data: Path, task: str, number: int) -> Path:
    """The published draw, or a balanced one that is written down once."""
    published = data / "list_splits" / task / f"{SHOTS}-{number}" / "train.jsonl"
    if published.exists():
        return published
    path = OUT / "draws" / f"{task}-{SHOTS}-{number}.jsonl"
    if not path.exists():
        lines = (data / task / "train.jsonl").read_text("utf-8").splitlines(keepends=True)
        chosen = draw([json.loads(line)["label"] for line in lines], SHOTS, number, balanced=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines[i] for i in chosen), "utf-8")
    return path


def one_run(data: Path, task: str, number: int, preset: str, name: str, overlay: dict[str, Any]) -> None:
    """Trains one run and keeps its figures with the whole configuration."""
    result = OUT / name / f"{task}-{number}.json"
    if result.exists():
        return
    labelled = labelled_file(data, task, number)
    files = {"labelled": str(labelled), "unlabelled": [str(data / task / "train.jsonl")]}
    where = {"task": task, "seed": number, "run_dir": str(OUT / name / f"{task}-{number}")}
    files["test"] = str(data / task / "test.jsonl")
    config = build_config(preset, overlay, where | {"data": files})
    report = self_train(config)
    assert report.labelled_only is not None
    assert report.final is not None
    figures = {
        "task": task, "draw": number, "labelled_only": report.labelled_only.accuracy, "final": report.final.accuracy,
        "zero_shot": report.zero_shot.accuracy if report.zero_shot else None,
        "students": [r.student.accuracy if r.student else None for r in report.rounds],
        "promoted": [r.promoted for r in report.rounds], "seconds": report.seconds,
        "baseline": baseline(task, str(labelled), files["test"]), "config": config.model_dump(mode="json"),
    }  # fmt: skip
    result.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    before, after, cheap = (figures[name] for name in ("labelled_only", "final", "baseline"))
    print(f"{task} {number}: {before:.3f} -> {after:.3f}, baseline {cheap:.3f}", flush=True)


def baseline(task: str, labelled: str, test: str) -> float:
    """Accuracy of logistic regression on mean-pooled, normalised sentence embeddings."""
    spec = load_task(task)

    def rows(path: str) -> list[Row]:
        return list(read_rows(path, spec.columns, is_pair=False, labels=list(spec.labels), want_label=True))

    train, held = rows(labelled), rows(test)
    model = LogisticRegression(max_iter=1000, C=10).fit(embed([r.text for r in train]), [r.label for r in train])
    kept = OUT / f"{file_digest(Path(test))[:12]}-embeddings.npy"
    if not kept.exists():
        np.save(kept, embed([r.text for r in held]))
    return float(model.score(np.load(kept, allow_pickle=False), [r.label for r in held]))


@torch.inference_mode()
def embed(texts: list[str]) -> np.ndarray:
    """(N, D) sentence embeddings of the untouched package model."""
    from transformers import AutoModel, AutoTokenizer

    folder = pretrained.base_folder()
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        batch = tokenizer([texts[i] for i in rows], padding=True, truncation=True, max_length=128, return_tensors="pt")
        hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        found[rows] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
    return found


def table(name: str) -> None:
    """Prints mean and sample standard deviation over the draws, per task and over tasks."""
    columns = ("zero_shot", "labelled_only", "final", "baseline")
    print("| task | draws | " + " | ".join(columns) + " | final - labelled_only | seconds |")
    print("|---" * (len(columns) + 4) + "|")
    means: dict[str, list[float]] = {column: [] for column in columns}
    for task in TASKS:
        runs = [json.loads(path.read_text()) for path in sorted((OUT / name).glob(f"{task}-*.json"))]
        if len(runs) < 2:
            continue
        cells = []
        for column in columns:
            values = [100 * run[column] for run in runs]
            means[column].append(mean(values))
            cells.append(f"{mean(values):.1f} ({stdev(values):.1f})")
        gains = [100 * (run["final"] - run["labelled_only"]) for run in runs]
        seconds = mean(run["seconds"] for run in runs)
        gain = f"{mean(gains):+.1f} ({stdev(gains):.1f})"
        print(f"| {task} | {len(runs)} | " + " | ".join(cells) + f" | {gain} | {seconds:.0f} |")
    over = {column: mean(values) for column, values in means.items() if values}
    if over:
        gain = over["final"] - over["labelled_only"]
        print("| mean | | " + " | ".join(f"{over[c]:.1f}" for c in columns) + f" | {gain:+.1f} | |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--draws", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--name", default="fast", help="name of this set of runs in benchmarks/out")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="print the table of what is there and stop")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(options.threads)
    if not options.table:
        (OUT / options.name).mkdir(parents=True, exist_ok=True)
        for number in options.draws:
            for task in options.tasks:
                one_run(options.data, task, number, options.preset, options.name, overlay_of(options.set))
    table(options.name)


def overlay_of(pairs: list[str]) -> dict[str, Any]:
    """``a.b=c`` pairs as a nested dict."""
    nested: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        *path, last = key.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = parse_yaml(value, f"--set {pair}", has_lines=False)
    return nested


if __name__ == "__main__":
    main()
