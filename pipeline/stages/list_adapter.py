"""The LiST adapter: a linear bottleneck after the attention output and after the FFN output of a layer.

x + (x P1^T) P2^T, no bias, no non-linearity, inside the sub-block: before dropout, residual and LayerNorm
(arXiv 2110.06274, section 3; both factors start at N(0, std^2), so a small std starts near the identity).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline import tape
from pipeline.backbone import Backbone
from pipeline.config import ListStage


class WithAdapter(nn.Module):
    """``h + up(down(h))`` for ``h = inner(x)``; ``inner`` stays frozen."""

    def __init__(self, inner: nn.Module, hidden: int, width: int) -> None:
        super().__init__()
        self.inner = inner
        self.down = tape.Linear(hidden, width, bias=False)
        self.up = tape.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x)
        return h + self.up(self.down(h))


def attach(view: nn.Module, backbone: Backbone, config: ListStage, generator: torch.Generator) -> nn.Module:
    """The ``nn.ModuleList`` of the 2 L adapters that now wrap the output projections of ``view``'s layers."""
    adapters = nn.ModuleList()
    layers = list(view.get_submodule(backbone.layers_in_view).children())
    for layer in layers[-config.top :] if config.top else layers:
        for path in (backbone.family.attention_output, backbone.family.ffn_output):
            adapters.append(_wrap(layer, path, backbone.hidden_size, config, generator))
    return adapters


def _wrap(layer: nn.Module, path: str, hidden: int, config: ListStage, generator: torch.Generator) -> nn.Module:
    parent, _, name = path.rpartition(".")
    owner = layer.get_submodule(parent)
    adapter = WithAdapter(getattr(owner, name), hidden, config.width)
    for projection in (adapter.down, adapter.up):
        nn.init.normal_(projection.weight, std=config.init_std, generator=generator)
    setattr(owner, name, adapter)
    return adapter
