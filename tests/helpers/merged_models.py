"""Classifiers whose trained parts can be merged into plain weights, and the backbones under them."""

from __future__ import annotations

from typing import Any

import torch
from stage_models import small
from tiny import CONFIGS, tiny_backbone
from transformers import AutoModelForMaskedLM, DebertaV2Config

from listflow.data.task import Task
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.stages.config import AnyStage

LABELS = {"no": "bad", "yes": "good", "so": "fine"}
TASK = Task(name="mood", template="{text} it was {mask} .", labels=LABELS)
VERBALIZER = {"kind": "verbalizer"}
LEARNED = {"composition": "scaled", "scale": 2.0, "learned_scale": True}


def backbone_of(family: str) -> Backbone:
    """Tiny, with biases that are not zero, in the newer form of DeBERTa for ``deberta-v3``."""
    if family == "deberta-v3":
        values = CONFIGS["deberta-v2"].to_dict() | {"legacy": False, "vocab_size": 60}
        torch.manual_seed(0)
        model = AutoModelForMaskedLM.from_config(DebertaV2Config(**values))
        backbone = Backbone(model, tiny_backbone().tokenizer, family)
    else:
        backbone = tiny_backbone(family)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in backbone.model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.2, generator=generator)
    return backbone


def of(*names: str | dict[str, Any]) -> tuple[AnyStage, ...]:
    """Stages by name, or by values with a name; of width 4, where nothing else is said."""
    given = (({"kind": name} if isinstance(name, str) else name) for name in names)
    return tuple(
        stage for values in given for stage in small(values["kind"], **{k: v for k, v in values.items() if k != "kind"})
    )
