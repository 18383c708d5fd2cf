"""A RoBERTa-large-sized backbone on a GPU, in bf16: six rounds, steps of the published size, labelling, memory.

    python benchmarks/gpu.py [--tokenizer FOLDER] [--rows 20000] [--steps 20] [--layers 24 --hidden 1024 --heads 16]

The backbone has random weights, so what is learned is of no use; what it costs is what any costs. Texts are the
demo's. Printed are seconds and the most memory that torch had of the GPU: of six rounds of preset `fast` (both views),
of steps of `released` (adapters in all layers), with what six rounds of these come to, and of labelling. Without a GPU
it runs on the processor, which is good for trying it out with a small model.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from demo_texts import demo_texts
from reference import PHASES, ours
from transformers import AutoTokenizer, RobertaConfig, RobertaForMaskedLM

from listflow.pipeline.backbone.pretrained import load_minilm
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def backbone_folder(folder: Path, options: argparse.Namespace) -> Path:
    """A random masked LM of the asked size on the embedded tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer) if options.tokenizer else load_minilm()[1]
    config = RobertaConfig(
        vocab_size=len(tokenizer), num_hidden_layers=options.layers, hidden_size=options.hidden,
        num_attention_heads=options.heads, intermediate_size=4 * options.hidden, max_position_embeddings=514,
        type_vocab_size=1, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(DEVICE):
        model = RobertaForMaskedLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters, {DEVICE}, torch {torch.__version__}")
    return folder


def timed(what: str, work: Callable[[], Any], rows: int = 0) -> Any:
    """What ``work`` gives; prints its seconds, and rows a second where it has rows."""
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    found = work()
    seconds = time.perf_counter() - began
    most = f"{torch.cuda.max_memory_allocated() / 2**30:6.2f} GiB" if DEVICE == "cuda" else ""
    print(f"  {what:42} {seconds:8.1f} s {most} {f'{rows / seconds:,.0f} rows/s' if rows else ''}", flush=True)
    return found


def published_steps(given: dict[str, Any], steps: int) -> None:
    """Prints what steps of preset `released` take."""
    with open_run(build_config("released", given)) as run:
        found = timed(f"{3 * steps} steps of released, and its labels", lambda: ours(run, steps))
    for kind in PHASES:
        print(f"    {kind:12} {1e3 * median(found.steps[kind]):7.1f} ms")
    print(f"    six rounds by these figures: {found.whole() / 60:.0f} min")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", help="a folder, where the embedded one is not installed")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--heads", type=int, default=16)
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        backbone = {"name": str(backbone_folder(folder / "large", options)), "precision": "bf16", "device": DEVICE}
        texts = demo_texts(options.rows)
        for what, extra in (("both views", {}), ("the prompt view alone", {"second": None})):
            given = {"run_dir": str(folder / what), "backbone": backbone, **extra}
            timed(f"fast, six rounds, {what}", lambda given=given: self_train(build_config("fast", given)))
            predictor = Predictor.open(folder / what)
            predictor.probabilities(texts[:256])
            views = len(predictor.committee.views)
            timed(f"labels by {views} view(s)", lambda p=predictor: p.probabilities(texts), len(texts))
        published_steps({"run_dir": str(folder / "released"), "backbone": backbone}, options.steps)


if __name__ == "__main__":
    main()
