"""Bottlenecks: dh = f(x W_d) W_u, and the three ways to put one beside a module (arXiv 2110.04366, table 1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from listflow.pipeline.method import tape
from listflow.pipeline.stages.config import Unified


def unchanged(x: Tensor) -> Tensor:
    """``x`` itself: the f of form linear. By name, as a lambda inside a classifier would refuse to be pickled."""
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"linear": unchanged, "relu": F.relu, "gelu": F.gelu}


class Bottleneck(nn.Module):
    """(B, ..., in) -> (B, ..., out): s * f(x W_d + b_d) W_u + b_u; s is 1, fixed, or trained."""

    def __init__(self, inner: int, outer: int, config: Unified, generator: torch.Generator) -> None:
        super().__init__()
        self.down = tape.Linear(inner, config.width, bias=config.bias)
        self.up = tape.Linear(config.width, outer, bias=config.bias)
        self.activation = ACTIVATIONS[config.form]
        self.fixed = config.scale
        self.scale = nn.Parameter(torch.tensor(config.scale)) if config.learned_scale else None
        start(self.down.weight, self.up.weight, config, generator)
        for linear in (self.down, self.up):
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        change = self.up(self.activation(self.down(x)))
        return change * (self.fixed if self.scale is None else tape.per_example(self.scale, change))


def start(down: Tensor, up: Tensor, config: Unified, generator: torch.Generator) -> None:
    """Both factors N(0, std^2), or LoRA's start: Kaiming-uniform (a = sqrt 5) below and zero above."""
    if config.init == "normal":
        nn.init.normal_(down, std=config.init_std, generator=generator)
        nn.init.normal_(up, std=config.init_std, generator=generator)
    else:
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        nn.init.zeros_(up)


class Sequential(nn.Module):
    """``h + dh(h)`` for ``h = inner(...)``: the change reads what it modifies."""

    def __init__(self, inner: nn.Module, change: nn.Module) -> None:
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, *given: Any, **named: Any) -> Tensor:
        h: Tensor = self.inner(*given, **named)
        return h + self.change(h)


class Parallel(nn.Module):
    """``inner(x) + dh(x)``: the change reads the input of what it modifies."""

    def __init__(self, inner: nn.Module, change: nn.Module) -> None:
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, x: Tensor, *given: Any, **named: Any) -> Any:
        found, change = self.inner(x, *given, **named), self.change(x)
        return (found[0] + change, *found[1:]) if isinstance(found, tuple) else found + change


class ParallelToBlock(nn.Module):
    """For a closing module that is called with (h, x) and adds x, the input of the whole sub-layer, itself.

    LN(dense(h) + x + dh(x)): handing on x + dh(x) leaves the module as it is. A second change joins the first, as one
    around the other would read x + dh(x).
    """

    def __init__(self, inner: nn.Module, change: nn.Module) -> None:
        super().__init__()
        self.inner, self.changes = inner, nn.ModuleList([change])

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        changed = x
        for change in self.changes:
            changed = changed + change(x)
        found: Tensor = self.inner(h, changed)
        return found
