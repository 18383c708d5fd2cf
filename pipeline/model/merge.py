"""Trained parts merged into the weights of a masked LM: the same logits, and no module of this project left.

Every wrapper that a stage put around a linear map W x + b is resolved from the inside out. A linear change M x + m
gives W + M and b + m where it reads the map's input, and (I + M) W and (I + M) b + m where it reads its output.
Sums are in float64, so that an fp32 weight is rounded once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.layers.attention import OnlyMask
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.config import AnyHead
from listflow.pipeline.model.verbalizer import Verbalizer, start_rows
from listflow.pipeline.stages.bitfit import OwnBias
from listflow.pipeline.stages.bottleneck import Bottleneck, Parallel, Sequential
from listflow.pipeline.stages.config import AnyStage, Unified

_SHARED = (
    "an '{}' backbone runs the same weights in every layer, and a stage that changes each layer by itself cannot be "
    "merged into them; use the run as it is with `listflow predict`."
)
CLOSES_A_BLOCK = {"attention_output", "ffn_output"}


@dataclass(frozen=True)
class Affine:
    """The float64 tensors of a linear map (out, in) and (out,), or of a LayerNorm (D,) and (D,)."""

    weight: Tensor
    bias: Tensor | None


@torch.no_grad()
def merge(model: Classifier, backbone: Backbone, word_ids: Sequence[Sequence[int]]) -> Backbone:
    """A new masked LM whose logits of ``label_tokens`` at the mask are the class logits of ``model``.

    ``backbone`` (fp32), which ``model`` stands on, stays as it is. The parts must be ones that
    ``check_mergeable`` lets pass; InputError for a bias where the backbone's map has none.
    """
    tokens, size = label_tokens(word_ids, backbone), len(backbone.word_rows)
    starts = start_rows(backbone.word_rows, word_ids)
    merged = _untied_copy(backbone, starts[[token >= size for token in tokens]])
    if model.encoder is not None:
        layers = list(model.encoder.get_submodule(backbone.layers_in_view).children())
        first = backbone.n_layers - len(layers)
        for number, layer in enumerate(layers, first):
            for path, wrapped in _wrapped(layer.layer if isinstance(layer, OnlyMask) else layer):
                if backbone.family.shares_layers:
                    raise InputError(_SHARED.format(backbone.model.config.model_type))
                _put(resolved(wrapped), merged.layer(number).get_submodule(backbone.family.own.get(path, path)))
    assert isinstance(model.head, Verbalizer)
    _put_head(model.head, merged, tokens)
    return merged


def label_tokens(word_ids: Sequence[Sequence[int]], backbone: Backbone) -> tuple[int, ...]:
    """The token that stands for each label in the merged model of ``backbone``, in label order.

    It is the label's word where that is one token, and no other label's; else a new one behind the vocabulary, which
    no text has.
    """
    found: list[int] = []
    new = count(len(backbone.word_rows))
    for ids in word_ids:
        found.append(ids[0] if len(ids) == 1 and ids[0] not in found else next(new))
    return tuple(found)


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


def _put_head(head: Verbalizer, merged: Backbone, tokens: Sequence[int]) -> None:
    """Overwrites the masked-LM head, and of its decoder the rows of ``tokens`` alone."""
    model, family, ids = merged.model, merged.family, list(tokens)
    _put(resolved(head.dense), model.get_submodule(family.head_dense))
    _put(resolved(head.norm), model.get_submodule(family.head_norm))
    decoder = model.get_output_embeddings()
    decoder.weight[ids] = head.words.weight
    # Some families keep the decoder's bias under two names, which are two tensors in an untied model.
    for bias in (decoder.bias, model.get_parameter(family.decoder_bias)):
        bias[ids] = head.words.bias


def _untied_copy(backbone: Backbone, new: Tensor) -> Backbone:
    """A copy whose decoder is not tied to the word embeddings: trained label words must not change the input.

    Tokens with the rows ``new`` (N, E) stand behind its vocabulary.
    """
    model = copy.deepcopy(backbone.model)
    if model.config.model_type == "deberta-v2" and not model.config.legacy:
        model = _legacy(model)
    model.config.tie_word_embeddings = False
    copied = Backbone(model, backbone.tokenizer, backbone.name)
    owner, _, name = copied.family.decoder_bias.rpartition(".")
    words, decoder = model.get_input_embeddings(), model.get_output_embeddings()
    bias = model.get_parameter(copied.family.decoder_bias)
    bias, rows = torch.cat([bias, bias.new_zeros(len(new))]), torch.cat([words.weight, new])
    setattr(model.get_submodule(owner), name, _own(bias))
    words.weight, decoder.weight, decoder.bias = _own(rows), _own(rows), _own(bias)
    words.num_embeddings = decoder.out_features = len(rows)
    model.config.vocab_size += len(new)
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
