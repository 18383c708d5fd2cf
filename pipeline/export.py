"""What a finished model keeps: stages that trained through an encoder, a decoder or an MLP, without it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.stages.config import AnyStage, Unified
from listflow.pipeline.stages.ipt import IntrinsicPrompt
from listflow.pipeline.stages.prefix import flat_prefix
from listflow.pipeline.stages.ptuning import SoftPrompt


def flat(model: Classifier, stages: Sequence[AnyStage]) -> tuple[list[AnyStage], dict[str, Tensor]]:
    """(stages, tensors) of a classifier that gives the logits of ``model``, which was built with ``stages``."""
    tensors, found = model.tensors(), list(stages)
    places = [place for place, stage in enumerate(stages) if stage.kind != "none"]
    for number, (place, part) in enumerate(zip(places, model.stage, strict=True)):
        made = _made(part, stages[place])
        if made is not None:
            found[place], own = made
            prefix = f"stage.{number}."
            tensors = {name: value for name, value in tensors.items() if not name.startswith(prefix)}
            tensors |= {prefix + name: value for name, value in own.items()}
    return found, tensors


def _made(part: nn.Module, stage: AnyStage) -> tuple[AnyStage, dict[str, Tensor]] | None:
    """(stage, its tensors) without what it was trained through; None for a stage that is flat already."""
    if isinstance(part, SoftPrompt | IntrinsicPrompt):
        return part.flat()
    if isinstance(stage, Unified) and stage.mlp and isinstance(part, nn.ModuleList):
        return flat_prefix(part, stage)
    return None
