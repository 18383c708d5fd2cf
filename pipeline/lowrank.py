"""The small update of ``minilm``: low-rank factors beside its encoder's linear maps, and the masked-LM head.

W' = W + scale * B A with A (rank, in) and B (out, rank), arXiv 2106.09685. The file that ``write_update``
makes has the form of the shipped one, and ``minilm.load`` merges it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from listflow.data.errors import InputError
from listflow.pipeline import minilm

SCALE = 2.0
ENCODER = "bert.encoder"
TRAINED_WHOLE = re.compile(r"bert\.encoder\..*\.LayerNorm\.|cls\.predictions\.(transform\.|bias$)")


class LowRank(nn.Module):
    """``inner(x) + (scale * x A^T) B^T``: ``inner`` itself until B has moved from zero."""

    def __init__(self, inner: nn.Linear, rank: int) -> None:
        super().__init__()
        self.inner = inner
        self.lora_A = nn.Parameter(torch.randn(rank, inner.in_features) * inner.in_features**-0.5)
        self.lora_B = nn.Parameter(torch.zeros(inner.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + F.linear(SCALE * F.linear(x, self.lora_A), self.lora_B)


def load_wrapped(rank: int, update: Path | None) -> tuple[Any, Any]:
    """(BertForMaskedLM, tokenizer), wrapped, with gradients asked for where the small file has tensors.

    Starts from the factors and head at ``update``, or anew from torch's random state. Raises InputError when
    ``update`` cannot be read or has factors of another rank.
    """
    model, tokenizer = minilm.load_base()
    tensors, scale = minilm.read_update(update) if update else ({}, SCALE)
    encoder = model.get_submodule(ENCODER)
    for name in [name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)]:
        encoder.set_submodule(name, LowRank(encoder.get_submodule(name), rank))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name or TRAINED_WHOLE.match(name) is not None)
    _start_from(dict(model.named_parameters()), tensors, scale)
    return model, tokenizer


def write_update(path: Path, model: nn.Module, rank: int) -> None:
    """The trained tensors as a safetensors file: matrices fp16, vectors fp32; equal tensors, equal bytes."""
    trained = {name: p.detach().cpu() for name, p in model.named_parameters() if p.requires_grad}
    tensors = {name: value.half() if value.dim() == 2 else value.float() for name, value in trained.items()}
    facts = {"format": "pt", "rank": str(rank), "scale": str(SCALE), "base_sha256": minilm.BASE_SHA256}
    path.write_bytes(_sorted_header(save(tensors, facts)))


@torch.no_grad()
def _start_from(parameters: dict[str, nn.Parameter], tensors: dict[str, Tensor], scale: float) -> None:
    for name, value in tensors.items():
        parameter = parameters.get(name)
        if parameter is None or parameter.shape != value.shape:
            raise InputError(f"the update to start from has an unfit {name}; take its rank, or start fresh.")
        parameter.copy_(value * (scale / SCALE) if name.endswith(".lora_B") else value)


def _sorted_header(raw: bytes) -> bytes:
    """The same file with its header in name order; the library's own order changes every time."""
    size = int.from_bytes(raw[:8], "little")
    header = json.dumps(json.loads(raw[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    return raw[:8] + header.ljust(size) + raw[8 + size :]
