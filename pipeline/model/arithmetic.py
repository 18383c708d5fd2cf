"""How frozen linear maps are multiplied where nothing is trained any more: as they are, packed, or in 8 bits.

``packed`` is oneDNN's own order of bfloat16 weights, with GELU and the residual sum in the same pass over memory; torch
uses it for what it compiles, and has no public name for it, so it is tried before it is used. ``int8`` rounds weights
and inputs to 8 bits, whole tensors at one scale each.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from listflow.data.errors import InputError

# As earlier versions read texts; the same without padding; that with packed weights; that in 8 bits.
Arithmetic = Literal["padded", "unpadded", "packed", "int8"]
TOKENS = 2048  # of a batch, which oneDNN chooses the order of weights for
# (N, in) and, where there is a residual sum, (N, out) -> (N, out)
Map = Callable[..., Tensor]


def fastest(dtype: str, device: str) -> Arithmetic:
    """What loses nothing and takes the least time here for a backbone of ``dtype`` (a name) on ``device`` (a type)."""
    if device != "cpu":
        return "padded"
    return "packed" if dtype == "bfloat16" and packs() else "unpadded"


def check_here(asked: Arithmetic, device: str = "cpu") -> None:
    """Returns where this machine can multiply like that on ``device`` (a type); InputError otherwise."""
    if device != "cpu" and asked != "padded":
        raise InputError(
            f"labels by '{asked}' arithmetic are made on a processor, and this model is on '{device}' here; hide the "
            "GPU (CUDA_VISIBLE_DEVICES=), or choose another --output and leave --int8 out."
        )
    if asked == "packed" and not packs():
        raise InputError(
            "these labels are made with packed bfloat16 weights, which this processor or this version of torch does "
            "not multiply; label on machines like the first, or choose another --output."
        )
    if asked == "int8" and not quantises():
        raise InputError("this version of torch multiplies no 8-bit numbers on this processor; leave --int8 out.")


@cache
def packs() -> bool:
    """Whether packed bfloat16 weights are multiplied here, and right."""
    try:
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        own = nn.Linear(32, 64).to(torch.bfloat16).requires_grad_(False)
        x, other = torch.ones(3, 32, dtype=torch.bfloat16), torch.ones(3, 64, dtype=torch.bfloat16)
        pairs = (
            (_Packed(own)(x), own(x)), (_Packed(own)(x, other), own(x) + other), (_Packed(own, True)(x), F.gelu(own(x)))
        )  # fmt: skip
        return all(torch.allclose(found.float(), right.float(), rtol=0.02, atol=0.02) for found, right in pairs)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False


@cache
def quantises() -> bool:
    """Whether 8-bit weights are multiplied here."""
    try:
        own = nn.Linear(32, 64).requires_grad_(False)
        return bool((_Int8(own)(torch.ones(3, 32)) - own(torch.ones(3, 32))).abs().max() < 0.1)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False


def map_of(
    own: nn.Linear, arithmetic: Arithmetic, made: dict[Any, Map], activation: Callable[[Tensor], Tensor] | None = None
) -> Map:
    """The map of ``own``, then ``activation`` or the sum with a second tensor.

    ``made`` remembers those of weights that several classifiers share: packed ones are a copy.
    """
    key = (arithmetic, id(own.weight))
    if key not in made:
        gelu = is_gelu(activation)
        if arithmetic == "packed" and (activation is None or gelu):
            made[key] = _Packed(own, gelu)
        else:
            made[key] = _Plain(_Int8(own) if arithmetic == "int8" else own, activation)
    return made[key]


def is_gelu(activation: Any) -> bool:
    """Whether it is the exact GELU."""
    if isinstance(activation, nn.GELU):
        return activation.approximate == "none"
    return activation is F.gelu or getattr(activation, "act", None) is F.gelu


class _Plain:
    def __init__(self, own: Callable[[Tensor], Tensor], activation: Callable[[Tensor], Tensor] | None) -> None:
        self.own, self.activation = own, activation

    def __call__(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        found = self.own(x)
        if other is not None:
            return found + other
        return found if self.activation is None else self.activation(found)


class _Packed:
    def __init__(self, own: nn.Linear, gelu: bool = False) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(own.weight.detach(), TOKENS)
        self.bias = None if own.bias is None else own.bias.detach()
        self.after: tuple[Any, ...] = ("gelu", [], "none") if gelu else ("none", [], "")

    def __call__(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        maps = torch.ops.mkldnn._linear_pointwise
        found: Tensor
        if other is None:
            found = maps(x, self.weight, self.bias, *self.after)
        else:
            found = maps.binary(x, other, self.weight, self.bias, "add")
        return found


class _Int8:
    def __init__(self, own: nn.Linear) -> None:
        # The engine is one for the whole process, and is read when weights are packed.
        before, torch.backends.quantized.engine = torch.backends.quantized.engine, "onednn"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                whole: Any = copy.deepcopy(own).float()
                whole.qconfig = torch.ao.quantization.per_channel_dynamic_qconfig
                self.own = torch.ao.nn.quantized.dynamic.Linear.from_float(whole)
        finally:
            torch.backends.quantized.engine = before

    def __call__(self, x: Tensor) -> Tensor:
        found: Tensor = self.own(x.float())
        return found.to(x.dtype)
