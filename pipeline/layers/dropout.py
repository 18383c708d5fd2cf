"""Dropout that draws its masks faster: torch draws one number after the other on most processors.

64 random bits serve four numbers, and the comparison is one pass over memory: a third of the time, where drawing masks
took a tenth of a step through all layers, and more beside several threads, which cannot share it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEPS = 2**16  # of a share that is dropped


class Dropout(nn.Dropout):
    """As ``nn.Dropout``; on a processor its share is rounded to a multiple of 2^-16, and what stays scaled to it."""

    def forward(self, x: Tensor) -> Tensor:
        dropped = round(self.p * STEPS)
        if not self.training or x.device.type != "cpu" or not 0 < dropped < STEPS:
            return super().forward(x)
        kept = torch.empty(x.shape, dtype=x.dtype)
        torch.ge(random_bits(x.numel()).view(x.shape), dropped - STEPS // 2, out=kept)
        return x * kept.mul_(STEPS / (STEPS - dropped))


def random_bits(count: int) -> Tensor:
    """(count,) int16, uniform over all its values, from torch's own generator."""
    return torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:count]


def seed_dropout(seed: int, device: torch.device) -> None:
    """As ``torch.manual_seed``, but on a processor no other ``device`` is seeded.

    For devices that are not there torch keeps the seed, with the whole stack of this call: 0.2 ms a step.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def with_own_dropout(view: nn.Module) -> nn.Module:
    """``view`` with ``Dropout`` in the place of torch's."""
    for path, module in list(view.named_modules(remove_duplicate=False)):
        if type(module) is nn.Dropout:
            view.set_submodule(path, Dropout(module.p))
    return view
