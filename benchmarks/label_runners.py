"""Rows a second of a finished model, beside what else labels texts and beside what the processor can multiply.

    python benchmarks/label_runners.py DATA [--threads 1 2] [--repeats 3]

The texts are the 1,000 test rows of sst2's first draw. Ours are the prompt view, the text view and both, trained for a
moment (what they say is of no use, what they cost is what any costs), by every way of multiplying that this machine
has. Beside them: transformers' pipeline() of a classifier on the same encoder (batches of 32, as they come and sorted,
fp32 and bf16), sentence-transformers' encode and a logistic regression, and onnxruntime and openvino on the exported
prompt view (32 at a time, sorted, tokenizer counted). Every way labels by turns, in one process, each time once before
the clock runs; printed are medians, how they are to pipeline() as it comes in fp32, and the share of the processor's
peak in that precision, which is measured on products of the encoder's own sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

# Kernels for every shape of every runner: whoever labels has one of these, and keeps what is compiled for it.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")

import numpy as np
import torch
import torch.nn.functional as F
from arithmetic import ways_here
from peer_data import Draw, draw_of
from torch import nn
from transformers import BertForSequenceClassification, pipeline

from listflow.pipeline.backbone.pretrained import base_folder, load_minilm
from listflow.pipeline.backbone.prompt import Text
from listflow.pipeline.onnx.readme import GRAPH
from listflow.pipeline.onnx.written import inputs_of
from listflow.pipeline.results.export import export
from listflow.pipeline.results.finished import Finished
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train

ROWS_AT_ONCE = 32
TOKENS = 1024  # of a product that the peak is measured on
VIEWS: dict[str, dict[str, Any]] = {"prompt": {"second": None}, "text": {"head": "prototypes"}, "both": {}}
Label = Callable[[list[str]], Any]


def trained(rows: Draw, folder: Path) -> dict[str, Path]:
    """A run of each kind of view, trained for a moment."""
    few = folder / "pool.jsonl"
    few.write_text("".join(rows.pool.read_text("utf-8").splitlines(keepends=True)[:100]), "utf-8")
    base = {
        "task": rows.task, "data": {"labelled": str(rows.labelled), "unlabelled": [str(few)]},
        "teacher": {"epochs": 1}, "student": {"steps": 5, "tail_epochs": 1}, "rounds": {"count": 1, "sample": 20},
    }  # fmt: skip
    for name, extra in VIEWS.items():
        self_train(build_config("fast", base, {"run_dir": str(folder / name)}, extra))
    return {name: folder / name for name in VIEWS}


def ours(runs: dict[str, Path]) -> dict[str, Label]:
    """By view and way of multiplying."""
    found: dict[str, Label] = {}
    for name, run in runs.items():
        for way in ways_here():
            predictor = Predictor.open(run, arithmetic=way)
            views, dtype = len(predictor.committee.views), predictor.backbone.dtype_name
            found[f"listflow {name} ({views}), {way}, {dtype}"] = predictor.probabilities
    return found


def pipelines() -> dict[str, Label]:
    found: dict[str, Label] = {}
    for dtype in (torch.float32, torch.bfloat16):
        model, tokenizer = load_minilm()
        whole = BertForSequenceClassification(model.config).eval()
        whole.bert.load_state_dict(model.bert.state_dict(), strict=False)
        made = pipeline("text-classification", model=whole.to(dtype), tokenizer=tokenizer, batch_size=ROWS_AT_ONCE)
        name = str(dtype).removeprefix("torch.")
        found[f"pipeline(), as they come, {name}"] = lambda texts, made=made: made(texts, truncation=True)
        found[f"pipeline(), sorted, {name}"] = lambda texts, made=made: made(sorted(texts, key=len), truncation=True)
    return found


def sentence_transformers(texts: list[str]) -> dict[str, Label]:
    if find_spec("sentence_transformers") is None:
        print("without sentence-transformers: pip install sentence-transformers")
        return {}
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression

    encoder = SentenceTransformer(str(base_folder()), device="cpu")
    fitted = LogisticRegression().fit(encoder.encode(texts[:30]), np.arange(30) % 2)
    return {"sentence-transformers, logistic regression": lambda texts: fitted.predict_proba(encoder.encode(texts))}


def exported(run: Path, folder: Path, threads: int) -> dict[str, Label]:
    """onnxruntime and openvino on the graph of the prompt view."""
    if not folder.exists():
        export(run, folder, "onnx")
    finished = Finished.open(run)
    prompt = finished.committee(finished.load_backbone("fp32", "cpu")).views[0].encoder

    def label(ask: Callable[[dict[str, np.ndarray]], Any]) -> Label:
        def every(texts: list[str]) -> None:
            in_order: list[Text] = [(text, None) for text in sorted(texts, key=len)]
            for start in range(0, len(in_order), ROWS_AT_ONCE):
                given = inputs_of(prompt, in_order[start : start + ROWS_AT_ONCE])
                ask({name: value.numpy() for name, value in given.items()})

        return every

    return {**_onnxruntime(folder / GRAPH, threads, label), **_openvino(folder / GRAPH, threads, label)}


def _onnxruntime(graph: Path, threads: int, label: Callable[..., Label]) -> dict[str, Label]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(graph), options)
    return {"onnxruntime, prompt view, sorted": label(lambda given: session.run(None, given))}


def _openvino(graph: Path, threads: int, label: Callable[..., Label]) -> dict[str, Label]:
    if find_spec("openvino") is None:
        print("without openvino: pip install openvino")
        return {}
    import openvino

    found, core = {}, openvino.Core()
    for precision in ("f32", "bf16"):
        options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
        compiled = core.compile_model(str(graph), "CPU", options)
        found[f"openvino {precision}, prompt view, sorted"] = label(lambda given, run=compiled: run(given))
    return found


def peaks() -> dict[str, float]:
    """The most products and sums a second, in GFLOPS, of the encoder's own sizes."""
    found = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16), ("int8", torch.int8)):
        rates = []
        for inner, outer in ((384, 384), (384, 1536), (1536, 384)):
            x, weight = torch.ones(TOKENS, inner).to(dtype), torch.ones(outer, inner).to(dtype)
            product = (lambda x=x, w=weight: torch._int_mm(x, w.t())) if dtype == torch.int8 else None
            seconds = min(_seconds(product or (lambda x=x, w=weight: F.linear(x, w))) for _ in range(30))
            rates.append(2e-9 * TOKENS * inner * outer / seconds)
        found[name] = max(rates)
    return found


@torch.inference_mode()
def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def products(run: Path, texts: Sequence[str]) -> float:
    """GFLOP that linear maps of the layers take for real tokens alone, whatever is padded."""
    finished = Finished.open(run)
    backbone = finished.load_backbone()
    layer = sum(part.weight.numel() for part in backbone.layer(0).modules() if isinstance(part, nn.Linear))
    total = 0.0
    for view in finished.committee(backbone).views:
        is_text = hasattr(view.encoder, "tokens")
        encoded = view.encoder.tokens(texts) if is_text else view.encoder.encode([(text, None) for text in texts])
        # The prompt view's last layer asks at the mask alone: of its maps, key and value see every token.
        depth = backbone.n_layers - (0 if is_text else 1 - 2 / 12)
        total += 2e-9 * float(encoded.lengths().sum()) * layer * depth
    return total


def compare(rows: Draw, runs: dict[str, Path], folder: Path, threads: int, repeats: int) -> None:
    """Prints the table of one number of threads."""
    torch.set_num_threads(threads)
    texts = [json.loads(line)["text"] for line in rows.test.read_text("utf-8").splitlines()]
    ways = pipelines() | sentence_transformers(texts) | exported(runs["prompt"], folder / "onnx", threads) | ours(runs)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, label in ways.items():
            label(texts)  # the kernels of its shapes are compiled again after another way's turn
            began = time.perf_counter()
            label(texts)
            taken[name].append(time.perf_counter() - began)
    found = {name: len(texts) / median(seconds) for name, seconds in taken.items()}
    best, first = peaks(), found["pipeline(), as they come, float32"]
    asked = {name: products(run, texts) / len(texts) for name, run in runs.items()}
    peak = ", ".join(f"{name} {rate:.0f}" for name, rate in best.items())
    print(f"{len(texts):,} rows of sst2, {threads} threads, load {os.getloadavg()[0]:.1f}; peaks in GFLOPS: {peak}")
    for name, rate in found.items():
        share = ""
        if name.startswith("listflow"):
            dtype = "int8" if ", int8," in name else name.rpartition(" ")[2]
            share = f"{100 * rate * asked[name.split()[1]] / best[dtype]:5.0f} % of the peak"
        print(f"  {name:44} {rate:7.0f} rows/s {rate / first:6.2f} x {share}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        rows = draw_of(options.data, "sst2", 1)
        runs = trained(rows, Path(name))
        for threads in options.threads:
            compare(rows, runs, Path(name), threads, options.repeats)


if __name__ == "__main__":
    main()
