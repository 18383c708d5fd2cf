"""Puts the stages of a configuration into a view of a backbone.

An attached stage is a plain ``nn.Module``: all that it trains, in modules that now stand around those of the view.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import torch
from torch import nn

from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.stages.config import AnyStage


def attach_all(
    view: nn.Module | None, depth: int, backbone: Backbone, stages: Sequence[AnyStage], generator: torch.Generator
) -> nn.ModuleList:
    """The trainable parts of all ``stages``, in their order, now wrapped into ``view``; none without a view.

    ``view`` holds the layers of ``backbone`` from ``depth`` upward. The code of a stage of kind K is ``attach`` in
    ``stages/K.py``.
    """
    if view is None:
        return nn.ModuleList()
    parts = (stage for stage in stages if stage.kind != "none")
    return nn.ModuleList(
        import_module(f"{__package__}.{stage.kind}").attach(view, depth, backbone, stage, generator) for stage in parts
    )
