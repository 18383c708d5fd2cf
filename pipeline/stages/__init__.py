"""Adapter stages: pluggable sets of trainable tensors inside the frozen backbone.

A stage is a plain ``nn.Module`` built from its config. It is attached by wrapping modules of one backbone view;
``STAGES`` maps the config's ``kind`` to the function that does so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from pipeline.backbone import Backbone
from pipeline.stage_config import AnyStage
from pipeline.stages import bitfit, ipt, ptuning, unified

Attach = Callable[[nn.Module, int, Backbone, Any, torch.Generator], nn.Module]

STAGES: dict[str, Attach] = {
    "unified": unified.attach, "bitfit": bitfit.attach, "ptuning": ptuning.attach, "ipt": ipt.attach,
}  # fmt: skip


def attach_all(
    view: nn.Module | None, depth: int, backbone: Backbone, stages: Sequence[AnyStage], generator: torch.Generator
) -> nn.ModuleList:
    """The trainable parts of all ``stages``, in their order, now wrapped into ``view``."""
    if view is None:
        return nn.ModuleList()
    parts = (stage for stage in stages if stage.kind != "none")
    return nn.ModuleList(STAGES[part.kind](view, depth, backbone, part, generator) for part in parts)
