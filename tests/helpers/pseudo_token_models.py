"""Classifiers whose prompts hold pseudo tokens, and the same ones without them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny import tiny_backbone

from listflow.data.task import Task
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.config import VerbalizerHead
from listflow.pipeline.model.verbalizer import label_word_ids
from listflow.pipeline.stages.config import Intrinsic
from listflow.pipeline.stages.ipt import AutoEncoder, Origin, save_subspace
from listflow.pipeline.stages.presets import pseudo_tokens, stages

LABELS = {"no": "bad", "yes": "good", "so": "fine"}
TASK = Task(name="t", template="{text} it was {mask} .", labels=LABELS)
TEXTS = [("w1 w2 good", None), ("w3 w4 w5 w6 poor w7 w8", None), ("w9", None)]
ENCODERS = ["lstm", "mlp", "none"]

# What a preset must be given besides its name; the function may write files into the folder that it gets.
NEEDS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "prefix_mlp": lambda folder: {"width": 4, "mlp": 8},
    "ptuning": lambda folder: {"tokens": 3, "hidden": 4},
    "soft_prompt": lambda folder: {"tokens": 3},
    "soft_prompt_mlm": lambda folder: {"tokens": 3},
    "ipt": lambda folder: {"tokens": 3, "subspace": str(folder)},
}


def build(family: str = "bert", template: str = TASK.template, **stage: object) -> tuple[Classifier, Prompt]:
    backbone = tiny_backbone(family)
    task = TASK.model_copy(update={"template": template})
    chosen = stages("ptuning", **{"tokens": 3} | stage)
    words = label_word_ids(task, backbone.tokenizer)
    model = Classifier(backbone, chosen, VerbalizerHead(), words, seed=1)
    return model, Prompt(task, backbone.tokenizer, 48, pseudo_tokens(chosen))


def plain(family: str, template: str = TASK.template) -> tuple[Classifier, Prompt]:
    backbone = tiny_backbone(family)
    task = TASK.model_copy(update={"template": template})
    words = label_word_ids(task, backbone.tokenizer)
    return Classifier(backbone, stages("none"), VerbalizerHead(), words), Prompt(task, backbone.tokenizer, 48)


def logits(model: Classifier, prompt: Prompt) -> torch.Tensor:
    with torch.no_grad():
        return model(prompt.encode(TEXTS).batch(range(len(TEXTS))))


def make_subspace(folder: Path, backbone: Backbone) -> None:
    """A subspace of 3 tokens in ``folder``, as a run of stage ipt needs one."""
    size = backbone.word_rows.shape[1]
    torch.manual_seed(0)
    task = Task(name="tiny", template="{text} it was {mask} .", labels={"negative": "bad", "positive": "good"})
    layout = Prompt(task, backbone.tokenizer, 64, Intrinsic(tokens=3, subspace=str(folder))).layout
    origin = Origin(
        tokens=3, dim=4, backbone=backbone.name, **backbone.identity().model_dump(),
        layouts=(layout,), tasks=("tiny",),
    )  # fmt: skip
    save_subspace(folder, AutoEncoder(4, 16, 3, size), torch.randn(4, 3, size), origin, {})
