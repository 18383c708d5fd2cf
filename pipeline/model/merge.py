"""Trained parts merged into the weights of a masked LM: the same logits, and no module of this project left.

Every wrapper that a stage put around a linear map W x + b is resolved from the inside out. A linear change M x + m
gives W + M and b + m where it reads the map's input, and (I + M) W and (I + M) b + m where it reads its output.
Sums are in float64, so that an fp32 weight is rounded once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.layers import OnlyMask
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.config import AnyHead
from listflow.pipeline.model.verbalizer import Verbalizer
from listflow.pipeline.stages.bitfit import OwnBias
from listflow.pipeline.stages.bottleneck import Bottleneck, Parallel, Sequential
from listflow.pipeline.stages.config import AnyStage, Unified

CLOSES_A_BLOCK = {"attention_output", "ffn_output"}


@dataclass(frozen=True)
class Affine:
    """The float64 tensors of a linear map (out, in) and (out,), or of a LayerNorm (D,) and (D,)."""

    weight: Tensor
    bias: Tensor | None


@torch.no_grad()
def merge(model: Classifier, backbone: Backbone, word_ids: Sequence[int]) -> Backbone:
    """A new masked LM whose logits of the words ``word_ids`` at the mask are the class logits of ``model``.

    ``backbone`` (fp32), which ``model`` stands on, stays as it is. The parts must be ones that
    ``check_mergeable`` lets pass; InputError for a bias where the backbone's map has none.
    """
    merged = _untied_copy(backbone)
    if model.encoder is not None:
        layers = list(model.encoder.get_submodule(backbone.layers_in_view).children())
        first = backbone.n_layers - len(layers)
        for number, layer in enumerate(layers, first):
            for path, wrapped in _wrapped(layer.layer if isinstance(layer, OnlyMask) else layer):
                _put(resolved(wrapped), merged.layer(number).get_submodule(path))
    assert isinstance(model.head, Verbalizer)
    _put_head(model.head, merged, word_ids)
    return merged


def check_mergeable(stages: Sequence[AnyStage], head: AnyHead, run: str) -> None:
    """Returns when all of ``stages`` and ``head`` merge; else an InputError that names what stands in the way."""
    problems = [*_of_stages(stages), *_of_head(head)]
    if problems:
        raise InputError(
            f"{run} has no form as a plain masked language model: {'; '.join(problems)}. "
            "Use the run as it is with `listflow predict`."
        )


def resolved(module: nn.Module) -> Affine:
    """The one map that a linear map or LayerNorm and all the linear changes around it amount to."""
    if isinstance(module, OwnBias):
        return replace(resolved(module.inner[0]), bias=module.bias.double())
    if isinstance(module, Sequential | Parallel):
        matrix, offset = _change(module.change)
        inner = resolved(module.inner)
        if isinstance(module, Parallel):
            return Affine(inner.weight + matrix, _sum(inner.bias, offset))
        bias = None if inner.bias is None else inner.bias + matrix @ inner.bias
        return Affine(inner.weight + matrix @ inner.weight, _sum(bias, offset))
    assert isinstance(module, nn.Linear | nn.LayerNorm)
    return Affine(module.weight.double(), None if module.bias is None else module.bias.double())


def _change(bottleneck: nn.Module) -> tuple[Tensor, Tensor | None]:
    """(M, m) of a linear bottleneck s (U (D x + d) + u)."""
    assert isinstance(bottleneck, Bottleneck)
    scale = bottleneck.fixed if bottleneck.scale is None else bottleneck.scale.double()
    down, up = resolved(bottleneck.down), resolved(bottleneck.up)
    matrix = scale * (up.weight @ down.weight)
    if down.bias is None or up.bias is None:
        return matrix, None
    return matrix, scale * (up.weight @ down.bias + up.bias)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return a if b is None else b if a is None else a + b


def _wrapped(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """(path, outermost wrapper) of everything below ``module`` that a stage has changed."""
    for name, child in module.named_children():
        if isinstance(child, Sequential | Parallel | OwnBias):
            yield path + name, child
        else:
            yield from _wrapped(child, f"{path}{name}.")


def _put(found: Affine, target: Any) -> None:
    """Overwrites a plain linear map or LayerNorm."""
    if found.bias is not None and target.bias is None:
        raise InputError(
            "a stage with biases stands at a linear map of the backbone that has none, so they cannot be merged; "
            "use the run as it is with `listflow predict`."
        )
    target.weight.copy_(found.weight)
    if found.bias is not None:
        target.bias.copy_(found.bias)


def _put_head(head: Verbalizer, merged: Backbone, word_ids: Sequence[int]) -> None:
    """Overwrites the masked-LM head, and of its decoder the rows of ``word_ids`` alone."""
    model, family, ids = merged.model, merged.family, list(word_ids)
    _put(resolved(head.dense), model.get_submodule(family.head_dense))
    _put(resolved(head.norm), model.get_submodule(family.head_norm))
    decoder = model.get_output_embeddings()
    decoder.weight[ids] = head.words.weight
    # Some families keep the decoder's bias under two names, which are two tensors in an untied model.
    for bias in (decoder.bias, model.get_parameter(family.decoder_bias)):
        bias[ids] = head.words.bias


def _untied_copy(backbone: Backbone) -> Backbone:
    """A copy whose decoder is not tied to the word embeddings: trained label words must not change the input."""
    model = copy.deepcopy(backbone.model)
    if model.config.model_type == "deberta-v2" and not model.config.legacy:
        model = _legacy(model)
    model.config.tie_word_embeddings = False
    copied = Backbone(model, backbone.tokenizer, backbone.name)
    owner, _, name = copied.family.decoder_bias.rpartition(".")
    decoder, bias = model.get_output_embeddings(), model.get_parameter(copied.family.decoder_bias)
    setattr(model.get_submodule(owner), name, _own(bias))
    decoder.weight, decoder.bias = _own(copied.word_rows), _own(bias)
    return copied


def _own(shared: Tensor) -> nn.Parameter:
    """A frozen copy of a tensor that several modules share."""
    return nn.Parameter(shared.detach().clone(), requires_grad=False)


def _legacy(model: Any) -> Any:
    """The same function in DeBERTa's legacy form: the other form has no decoder apart from the word embeddings."""
    config = copy.deepcopy(model.config)
    config.legacy = True
    legacy = type(model)(config)
    legacy.deberta = model.deberta
    own, given = legacy.cls.predictions, model.lm_predictions.lm_head
    own.transform.dense, own.transform.LayerNorm, own.bias = given.dense, given.LayerNorm, given.bias
    return legacy


def _of_stages(stages: Sequence[AnyStage]) -> Iterator[str]:
    for stage in stages:
        if isinstance(stage, Unified):
            yield from _of_unified(stage)
        elif stage.kind == "ptuning":
            yield f"the {stage.tokens} pseudo tokens of stage ptuning are no words of the vocabulary"
        elif stage.kind not in {"bitfit", "none"}:
            yield f"stage {stage.kind} is no part of the weights"


def _of_unified(stage: Unified) -> Iterator[str]:
    if stage.form == "softmax":
        yield "a prefix (form softmax) adds keys and values that no weight holds"
    elif "attention_heads" in stage.place:
        yield "a change at place attention_heads reads queries and adds to what the heads found"
    elif stage.form != "linear":
        yield f"a {stage.form} bottleneck at {' and '.join(stage.place)} is no linear map"
    elif "embeddings" in stage.place:
        yield "a change at place embeddings follows a LayerNorm, which no linear map does there"
    elif stage.insertion == "parallel" and CLOSES_A_BLOCK & set(stage.place):
        places = " and ".join(place for place in stage.place if place in CLOSES_A_BLOCK)
        yield f"a parallel change at {places} reads the input of the whole sub-layer, not of a linear map"


def _of_head(head: AnyHead) -> Iterator[str]:
    if head.kind != "verbalizer":
        yield f"head {head.kind} scores classes, not words at the mask (head verbalizer does)"
