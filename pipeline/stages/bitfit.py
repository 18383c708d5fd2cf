"""BitFit: a trainable copy of every bias vector in the chosen layers (arXiv 2106.10199)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.method import tape
from listflow.pipeline.stages.config import BitFit


def attach(view: nn.Module, depth: int, backbone: Backbone, config: BitFit, generator: torch.Generator) -> nn.Module:
    """The ``nn.ModuleList`` of all ``OwnBias`` modules that now stand in ``view``'s layers.

    Only the backbone's own biases are copied, not those of other stages. InputError where it has none.
    """
    changes, frozen = nn.ModuleList(), {id(parameter) for parameter in backbone.model.parameters()}
    layers = list(view.get_submodule(backbone.layers_in_view).children())
    for number in config.chosen(backbone.n_layers):
        layer = layers[number - depth]
        for name, module in list(layer.named_modules()):
            if isinstance(module, nn.Linear | nn.LayerNorm) and id(module.bias) in frozen and _reads_text(name):
                changes.append(OwnBias(module))
                layer.set_submodule(name, changes[-1])
    if not changes:
        kind = backbone.model.config.model_type
        raise InputError(f"the layers of a '{kind}' backbone have no bias vectors for stage bitfit; choose another.")
    return changes


def _reads_text(name: str) -> bool:
    """Whether a module sees hidden states alone: DeBERTa's queries and keys also project relative positions."""
    return not name.endswith(("query_proj", "key_proj"))


class OwnBias(nn.Module):
    """A frozen linear map or LayerNorm with a bias of its own."""

    def __init__(self, inner: nn.Linear | nn.LayerNorm) -> None:
        super().__init__()
        # In a tuple: the frozen tensors belong to the backbone, and only the new bias to this module.
        self.inner = (inner,)
        self.bias = nn.Parameter(inner.bias.detach().float().clone())

    def forward(self, x: Tensor) -> Tensor:
        inner = self.inner[0]
        if isinstance(inner, nn.Linear):
            y = F.linear(x, inner.weight)
        else:
            y = F.layer_norm(x, inner.normalized_shape, inner.weight, None, inner.eps)
        return y + tape.per_example(self.bias, y)
