"""Memory of one backbone with a teacher and a student on it, and whether its bytes survive a round.

    python benchmarks/memory.py [--precision fp32|bf16]

Prints resident memory after each part is built, what the parts add in tensor bytes, the peak while both are in
use (the teacher labels, the student takes reweighted steps), and the backbone's checksum before and after.
"""

from __future__ import annotations

import argparse
import os
import resource
from pathlib import Path

import numpy as np
import torch

from listflow.data.task import load_task
from listflow.pipeline.backbone.backbone import Backbone, load_backbone
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.model.classifier import Classifier, logits_of
from listflow.pipeline.model.verbalizer import label_word_ids
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.training.trainer import Material, Recipe, Trainer


def resident() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def classifier(backbone: Backbone, seed: int) -> tuple[Classifier, Prompt]:
    task, config = load_task("demo"), build_config("fast")
    words = label_word_ids(task, backbone.tokenizer)
    return Classifier(backbone, config.stage, config.head, words, seed), Prompt(task, backbone.tokenizer, 64)


def new_bytes(model: Classifier, known: set[int]) -> int:
    """Bytes of the tensors in ``model`` whose storage is not in ``known``."""
    fresh = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    return sum(size for pointer, size in fresh.items() if pointer not in known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    options = parser.parse_args()
    print(f"start                {resident():8.1f} MB resident")
    backbone = load_backbone("minilm", options.precision)
    own = sum(p.numel() * p.element_size() for p in backbone.model.parameters())
    print(f"backbone             {resident():8.1f} MB resident, {own / 1e6:.1f} MB of tensors")
    before = backbone.checksum()
    known = {p.untyped_storage().data_ptr() for p in backbone.model.parameters()}
    models = []
    for number, name in enumerate(("teacher", "student")):
        model, prompt = classifier(backbone, number)
        models.append(model)
        print(f"{name}              {resident():8.1f} MB resident, {new_bytes(model, known) / 1e6:.1f} MB of tensors")
    texts = prompt.encode([(f"message {i} about my parcel and its invoice", None) for i in range(320)])
    soft = logits_of(models[0], texts).softmax(-1)
    recipe = Recipe((("warmup", 5), ("reweighted", 5)), 1e-3, batch=32, labelled_batch=10, meta_batch=10)
    gold = torch.arange(30) % soft.shape[1]
    Trainer(models[1], recipe, Material(texts.take(np.arange(30)), gold, texts, soft)).run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak                 {peak:8.1f} MB resident")
    print(f"backbone unchanged   {backbone.checksum() == before}")


if __name__ == "__main__":
    main()
