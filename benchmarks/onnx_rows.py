"""Rows a second of a run as ONNX, beside `Predictor` on the same rows, in one process by turns.

    python benchmarks/onnx_rows.py [--run RUN] [--rows 1000] [--repeats 3] [--threads 1 2]

Without a run, one on the embedded backbone is trained for a moment: what it says is of no use, what it costs is what
any costs. The rows are texts of the demo. onnxruntime takes 32 rows at a time, as they come and sorted by length, with
the tokenizer's time; `Predictor` sorts by itself. Prints the median of the repeats, and rows a second of CPU time,
which says more where the machine does other things too. (Not called onnx.py, as that would be taken for the package.)
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from demo_texts import demo_texts
from label import finished_run

from listflow.pipeline.backbone.prompt import Prompt, Text
from listflow.pipeline.method.mixture import mixed
from listflow.pipeline.model.committee import Committee
from listflow.pipeline.onnx.readme import GRAPH
from listflow.pipeline.onnx.written import inputs_of
from listflow.pipeline.results.export import export
from listflow.pipeline.results.finished import Finished
from listflow.pipeline.results.predictor import Predictor

ROWS_AT_ONCE = 32
Label = Callable[[Sequence[Text]], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        run, out = options.run or finished_run(Path(name), "minilm"), Path(name) / "onnx"
        export(run, out, "onnx")
        texts = demo_texts(options.rows)
        for threads in options.threads:
            torch.set_num_threads(threads)
            compare(ways(run, out, threads), texts, options.repeats, threads)


def ways(run: Path, out: Path, threads: int) -> dict[str, tuple[Label, bool]]:
    """What labels texts, by name, and whether it is given them sorted."""
    finished = Finished.open(run)
    backbone = finished.load_backbone("fp32", "cpu")
    own, fp32 = Predictor.open(run), Predictor.of(finished, backbone)
    graphs = of_graphs(fp32.committee, out, threads)
    return {
        f"Predictor, {own.backbone.dtype_name} (the run's own)": (own.probabilities, False),
        "Predictor, float32": (fp32.probabilities, False),
        "onnxruntime, as they come": (graphs, False),
        "onnxruntime, sorted": (graphs, True),
    }


def of_graphs(committee: Committee, out: Path, threads: int) -> Label:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    views = committee.views
    folders = [out if len(views) == 1 else out / ("prompt" if isinstance(v.encoder, Prompt) else "text") for v in views]
    sessions = [onnxruntime.InferenceSession(str(folder / GRAPH), options) for folder in folders]

    def label(texts: Sequence[Text]) -> np.ndarray:
        found = []
        for start in range(0, len(texts), ROWS_AT_ONCE):
            rows = texts[start : start + ROWS_AT_ONCE]
            given = [{k: v.numpy() for k, v in inputs_of(view.encoder, rows).items()} for view in views]
            said = [torch.from_numpy(s.run(None, each)[0]) for s, each in zip(sessions, given, strict=True)]
            if len(views) > 1:
                temperatures, weights = [view.temperature for view in views], [view.weight for view in views]
                said = [mixed(said, temperatures, weights) / committee.temperature]
            found.append(said[0].softmax(-1).numpy())
        return np.concatenate(found)

    return label


def compare(ways: dict[str, tuple[Label, bool]], texts: list[Text], repeats: int, threads: int) -> None:
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    by_length = sorted(texts, key=lambda row: len(row[0]))
    said: dict[str, np.ndarray] = {}
    for _ in range(repeats):
        for name, (label, is_sorted) in ways.items():
            rows = by_length if is_sorted else texts
            label(rows[:64])
            began, cpu = time.perf_counter(), time.process_time()
            said[name] = label(rows)
            taken[name].append((time.perf_counter() - began, time.process_time() - cpu))
    print(f"{len(texts):,} rows, {threads} threads, load {os.getloadavg()[0]:.1f}")
    for name, each in taken.items():
        rates = [len(texts) / median(column) for column in zip(*each, strict=True)]
        print(f"  {name:38} {rates[0]:7.0f} rows/s {rates[1]:7.0f} rows/CPU s", flush=True)
    off = np.abs(said["onnxruntime, as they come"] - said["Predictor, float32"]).max()
    print(f"  most that a probability differs from float32: {off:.1e}")


if __name__ == "__main__":
    main()
