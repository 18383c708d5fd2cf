"""Puts a ``Unified`` stage into the layers of a backbone view: one wrapper for every layer and place."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.layers.attention import opened
from listflow.pipeline.stages.bottleneck import Bottleneck, Parallel, ParallelToBlock, Sequential
from listflow.pipeline.stages.config import Place, Unified
from listflow.pipeline.stages.prefix import FlatPrefix, HeadBottleneck, Prefix, PrefixOfLayer, SharedPrefix


def attach(view: nn.Module, depth: int, backbone: Backbone, config: Unified, generator: torch.Generator) -> nn.Module:
    """The ``nn.ModuleList`` of all that is trained. ``view`` holds the layers from ``depth`` upward.

    InputError where the backbone has no such place, or one that is too narrow.
    """
    _check(backbone, config)
    layers = list(view.get_submodule(backbone.layers_in_view).children())
    chosen = [layers[number - depth] for number in config.chosen(backbone.n_layers)]
    changes = nn.ModuleList()
    if "attention_heads" in config.place:
        changes.extend(_in_heads(chosen, backbone, config, generator))
    if "embeddings" in config.place:
        size = backbone.word_rows.shape[1]
        changes.append(Bottleneck(size, size, config, generator))
        view.set_submodule("embeddings", Sequential(view.get_submodule("embeddings"), changes[-1]))
    for layer in chosen:
        for place in config.place:
            if place not in {"embeddings", "attention_heads"}:
                changes.append(_wrap(layer, place, backbone, config, generator))
    return changes


def _check(backbone: Backbone, config: Unified) -> None:
    """InputError for a bottleneck above the hidden size, or a place that the backbone's family lacks."""
    narrowest = backbone.word_rows.shape[1] if "embeddings" in config.place else backbone.hidden_size
    if config.form != "softmax" and config.width > narrowest:
        raise InputError(
            f"stage.width is {config.width}, above the hidden size {narrowest} of backbone "
            f"'{backbone.name}'; a bottleneck must be narrower."
        )
    for place in config.place:
        if place in {"attention_query", "attention_key", "attention_value", "ffn_intermediate"}:
            _path(backbone, place)


def _in_heads(layers: list[Any], backbone: Backbone, config: Unified, generator: torch.Generator) -> nn.ModuleList:
    """An extra for the attention of each of ``layers``; before these, what they share."""
    changes = nn.ModuleList()
    shared = None
    if config.mlp:
        shared = SharedPrefix(backbone.hidden_size, len(layers), config, generator)
        changes.append(shared)
    for place, layer in enumerate(layers):
        attention = opened(layer, backbone)
        if config.form != "softmax":
            extra: nn.Module = HeadBottleneck(
                backbone.hidden_size, backbone.hidden_size // attention.head_size, config, generator
            )
        elif shared is not None:
            extra = Prefix(PrefixOfLayer(shared, place), config)
        else:
            extra = Prefix(FlatPrefix(backbone.hidden_size, config, generator), config)
        attention.extras.append(extra)
        changes.append(extra)
    return changes


def _wrap(layer: nn.Module, place: Place, backbone: Backbone, config: Unified, generator: torch.Generator) -> nn.Module:
    """Wraps the module at ``place`` of ``layer`` and returns what is trained."""
    family = backbone.family
    beside_block = config.insertion == "parallel" and place in {"attention_output", "ffn_output"}
    if beside_block:
        path = family.attention_block if place == "attention_output" else family.ffn_block
        sizes = (backbone.hidden_size, backbone.hidden_size)
    else:
        path = _path(backbone, place)
        sizes = _sizes(layer.get_submodule(_within(layer, path)))
    path = _within(layer, path)
    sizes = sizes if config.insertion == "parallel" else (sizes[1], sizes[1])
    change = Bottleneck(*sizes, config, generator)
    wrapper: type[Sequential | Parallel | ParallelToBlock] = (
        Sequential if config.insertion == "sequential" else Parallel
    )
    if beside_block and family.closes_blocks:
        wrapper = ParallelToBlock
    wrapped = layer.get_submodule(path)
    if wrapper is ParallelToBlock and isinstance(wrapped, ParallelToBlock):
        wrapped.changes.append(change)
    else:
        layer.set_submodule(path, wrapper(wrapped, change))
    return change


def _within(layer: nn.Module, path: str) -> str:
    """``path`` as it is in ``layer`` now, where other stages may stand around the modules on the way."""
    steps, module = [], layer
    for name in path.split("."):
        while not hasattr(module, name):
            steps.append("inner")
            module = module.get_submodule("inner")
        steps.append(name)
        module = module.get_submodule(name)
    return ".".join(steps)


def _sizes(module: Any) -> tuple[int, int]:
    """(in, out) of the linear map inside whatever stages have put around it."""
    while not isinstance(module, nn.Linear):
        module = module.inner[0] if isinstance(module.inner, tuple) else module.inner
    return module.in_features, module.out_features


def _path(backbone: Backbone, place: Place) -> str:
    """Where a layer of the backbone's family has the module at ``place``; InputError where it has none."""
    path: str | None = getattr(backbone.family, place)
    if path is None:
        raise InputError(
            f"a '{backbone.model.config.model_type}' backbone has no {place} that a stage can change; choose another."
        )
    return path
