"""What work that need not be done saves: kept features, and a backbone that is never trained through.

    python benchmarks/stages.py cache [--steps 60]      top:2 of 6 layers, with and without kept features, same losses
    python benchmarks/stages.py ytuning [--rows 5000]   six rounds with Y-tuning beside six with the LiST stage

Both sides run in one process on the embedded backbone, with texts of the demo made by its own generator.
"""

from __future__ import annotations

import argparse
import json
import runpy
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.training.trainer import Material, Recipe, Tick, Trainer

DEMO = Path(__file__).parents[1] / "data" / "demo"


def texts(folder: Path, rows: int) -> Path:
    """An unlabelled file of ``rows`` messages, as the demo's generator makes them up."""
    maker = runpy.run_path(str(DEMO / "make_demo.py"))
    maker["build"].__globals__["ROWS_PER_CLASS"] = {"unlabelled": rows // len(maker["LABELS"])}
    made = [json.dumps({"text": row["text"]}) + "\n" for row in maker["build"]()["unlabelled"]]
    path = folder / "unlabelled.jsonl"
    path.write_text("".join(made), "utf-8")
    return path


def config_for(folder: Path, pool: Path, name: str, overlay: dict[str, object]) -> RunConfig:
    data = {"labelled": str(DEMO / "labelled.jsonl"), "test": str(DEMO / "test.jsonl"), "shots": 30}
    files = {"data": data | {"unlabelled": [str(pool)]}, "task": "demo", "run_dir": str(folder / name)}
    return build_config("fast", files, overlay)


def cache(folder: Path, steps: int) -> None:
    """Prints seconds of training with and without kept features, what keeping took, and the largest loss gap."""
    config = config_for(
        folder,
        texts(folder, 2400),
        "cache",
        {"stage": {"layers": "top:2"}, "dropout": False, "backbone": {"precision": "fp32"}},
    )
    losses, seconds = {}, {}
    for keep in (True, False):
        began = time.perf_counter()
        with open_run(config, keep_features=keep) as run:
            opened = time.perf_counter() - began
            soft = torch.full((len(run.corpus), len(run.labels)), 1 / len(run.labels))
            material = Material(run.labelled, run.gold, run.corpus, soft)
            trainer = Trainer(run.new_classifier(1, None), Recipe((("warmup", steps),), 1e-3, 16, 10), material)
            ends: list[float] = []

            def on_step(tick: Tick, ends: list[float] = ends) -> None:
                ends.append(time.perf_counter())

            losses[keep] = trainer.run(on_step).losses
            seconds[keep] = ends[-1] - ends[4]
        print(
            f"kept features: {keep}; opened in {opened:.1f} s, {steps - 5} steps in {seconds[keep]:.2f} s", flush=True
        )
    gap = max(abs(a - b) for a, b in zip(losses[True], losses[False], strict=True))
    print(f"with kept features {seconds[False] / seconds[True]:.2f} x faster; largest difference of a loss {gap:.1e}")


def ytuning(folder: Path, rows: int) -> None:
    """Prints the seconds and accuracy of six rounds, Y-tuning beside the LiST stage in all layers."""
    pool = texts(folder, rows)
    kinds: dict[str, dict[str, object]] = {
        "list": {"stage": {"layers": "all"}},
        "ytuning": {"stage": "none", "head": "ytuning"},
    }
    taken = {}
    for name, overlay in kinds.items():
        began = time.perf_counter()
        report = self_train(config_for(folder, pool, name, overlay))
        taken[name] = time.perf_counter() - began
        assert report.labelled_only is not None
        assert report.final is not None
        before, after = report.labelled_only.accuracy, report.final.accuracy
        print(f"{name}: {taken[name]:.1f} s, labels alone {before:.3f}, final {after:.3f}", flush=True)
    print(f"Y-tuning is {taken['list'] / taken['ytuning']:.1f} x faster")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cache", "ytuning"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with TemporaryDirectory() as folder:
        if options.what == "cache":
            cache(Path(folder), options.steps)
        else:
            ytuning(Path(folder), options.rows)


if __name__ == "__main__":
    main()
