"""What a finished model keeps: stages that trained through an encoder, without it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pipeline.model import Classifier
from pipeline.stage_config import AnyStage
from pipeline.stages.ipt import IntrinsicPrompt
from pipeline.stages.ptuning import SoftPrompt


def flat(model: Classifier, stages: Sequence[AnyStage]) -> tuple[list[AnyStage], dict[str, Tensor]]:
    """(stages, tensors) of a classifier that gives the logits of ``model``, which was built with ``stages``."""
    tensors, found = model.tensors(), list(stages)
    places = [place for place, stage in enumerate(stages) if stage.kind != "none"]
    for number, (place, part) in enumerate(zip(places, model.stage, strict=True)):
        if isinstance(part, SoftPrompt | IntrinsicPrompt):
            found[place], own = part.flat()
            prefix = f"stage.{number}."
            tensors = {name: value for name, value in tensors.items() if not name.startswith(prefix)}
            tensors |= {prefix + name: value for name, value in own.items()}
    return found, tensors
