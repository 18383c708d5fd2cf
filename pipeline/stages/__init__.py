"""Adapter stages: pluggable sets of trainable tensors inside the frozen backbone.

A stage is a plain ``nn.Module`` built from its config. It is attached by wrapping modules of one backbone view;
``STAGES`` maps the config's ``kind`` to the function that does so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pipeline.backbone import Backbone
from pipeline.stages.list_adapter import attach as attach_list_adapter

Attach = Callable[[nn.Module, Backbone, Any, torch.Generator], nn.Module]

STAGES: dict[str, Attach] = {"list": attach_list_adapter}
