"""Adapter stages: pluggable sets of trainable tensors inside the frozen backbone.

A stage is a plain ``nn.Module``. Its config attaches it, by wrapping modules of one backbone view.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.stages.config import AnyStage, NoStage


def attach_all(
    view: nn.Module | None, depth: int, backbone: Backbone, stages: Sequence[AnyStage], generator: torch.Generator
) -> nn.ModuleList:
    """The trainable parts of all ``stages``, in their order, now wrapped into ``view``."""
    if view is None:
        return nn.ModuleList()
    parts = (stage for stage in stages if not isinstance(stage, NoStage))
    return nn.ModuleList(part.attach(view, depth, backbone, generator) for part in parts)
