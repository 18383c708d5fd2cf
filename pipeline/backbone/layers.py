"""One frozen encoder as two trees: the layers below the first tuned one, and those from it upward.

What the lower tree gives for a text never changes, so it needs no gradient and is worth keeping (``features``).
Both trees are views: new modules around the backbone's own tensors.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from listflow.pipeline.backbone.backbone import Backbone


class Given(nn.Module):
    """In the place of the embedding layer: passes on the hidden states that the encoder was called with."""

    def forward(self, input_ids: None = None, inputs_embeds: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        assert inputs_embeds is not None
        return inputs_embeds


def lower(backbone: Backbone, depth: int) -> nn.Module:
    """An encoder of embeddings and the first ``depth`` layers; its ``last_hidden_state`` is what ``upper`` takes."""
    view = backbone.view()
    _keep(view, backbone, 0, depth)
    if depth < backbone.n_layers and hasattr(view, "final_norm"):  # ModernBERT: belongs after the last layer
        view.final_norm = nn.Identity()
    return view.requires_grad_(False).eval()


def upper(backbone: Backbone, depth: int) -> nn.Module:
    """An encoder from layer ``depth`` upward; called with ``inputs_embeds`` (B, T, D) where ``depth`` is above 0."""
    view = backbone.view()
    if depth:
        _keep(view, backbone, depth, backbone.n_layers)
        view.embeddings = Given()
        if hasattr(view, "embeddings_project"):  # ELECTRA: the hidden states are projected already
            view.embeddings_project = nn.Identity()
    return view


def divisible(backbone: Backbone) -> bool:
    """Whether the layers can run apart; not where a convolution runs beside the first one (large DeBERTa-v2)."""
    return not getattr(backbone.model.config, "conv_kernel_size", 0)


def _keep(view: nn.Module, backbone: Backbone, first: int, end: int) -> None:
    layers = view.get_submodule(backbone.layers_in_view)
    assert isinstance(layers, nn.ModuleList)
    view.set_submodule(backbone.layers_in_view, layers[first:end])
