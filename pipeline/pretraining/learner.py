"""A backbone about to be trained: which of its tensors move, at what rate, and how the result is kept.

Any backbone but ``minilm`` is trained and kept whole. ``minilm`` gets a small update: low-rank factors beside its
encoder's linear maps, and the masked-LM head. W' = W + scale * B A with A (rank, in) and B (out, rank), arXiv
2106.09685. The file that ``write_update`` makes has the form of the shipped one, and ``pretrained.load_minilm`` merges
it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import save
from torch import Tensor, nn

from listflow.data.errors import InputError
from listflow.data.schema import Section
from listflow.data.task import Columns
from listflow.pipeline.backbone import pretrained
from listflow.pipeline.backbone.backbone import Backbone, load_backbone, resolve_device, resolve_precision
from listflow.pipeline.method.sampling import seed_for

UPDATE_FILE = "mlm.safetensors"
SCALE, FRESH_RANK = 2.0, 16
ENCODER = "bert.encoder"
# Of ``minilm``, besides the factors.
TRAINED_WHOLE = re.compile(r"bert\.encoder\..*\.LayerNorm\.|cls\.predictions\.(transform\.|bias$)")
# The peak rate of any other backbone.
WHOLE_RATE = 5e-5
# Of the factors, and of head and LayerNorms. An update that has converged is thrown back by the first pair.
FRESH_RATES, CONTINUED_RATES = (1e-3, 2e-3), (3e-4, 3e-4)


class AdaptConfig(Section):
    """Continued masked-LM training: how long, how fast, on what share of which tokens."""

    columns: Columns = Field(default=Columns(), description="the text column of csv, tsv, jsonl or parquet files")
    fresh: bool = Field(default=False, description="minilm: start from the plain encoder, not from an update")
    rank: int | None = Field(
        default=None, ge=1, le=256, description="minilm: rank of the update; empty: as it was, fresh 16"
    )
    steps: int = Field(default=7000, ge=1, le=10_000_000, description="optimiser steps")
    batch: int = Field(default=32, ge=1, le=4096, description="sequences a step")
    length: int = Field(default=64, ge=8, le=8192, description="tokens of a sequence")
    mask_share: float = Field(default=0.2, gt=0, lt=1, description="share of the tokens to be guessed")
    learning_rate: float | None = Field(
        default=None, gt=0, le=1, description="peak; empty: 3e-4 for minilm, fresh 1e-3; 5e-5 for others"
    )
    head_learning_rate: float | None = Field(
        default=None, gt=0, le=1, description="minilm: of its head and LayerNorms; empty: 3e-4, fresh 2e-3"
    )
    warmup: float = Field(
        default=0.05, ge=0, lt=1, description="share of the steps with a rising rate; it falls to 0 then"
    )
    held_out: float = Field(default=0.01, gt=0, le=0.5, description="share to measure on, 2,000 sequences at most")
    seed: int = Field(default=1, ge=0, le=2**31)
    checkpoint_every: int = Field(default=500, ge=1, le=1_000_000, description="steps between two checkpoints")
    precision: Literal["auto", "fp32", "bf16"] = Field(default="auto", description="bf16 where the hardware has it")
    device: str = Field(default="auto", description="auto, cpu, or cuda")


@dataclass(frozen=True)
class Learner:
    """``rates``: peak rate of each trained tensor. ``write`` fills a folder, whose ``entry`` is the result.

    ``rank`` is that of a small update; of a backbone that is trained whole it says nothing.
    """

    backbone: Backbone
    rates: dict[str, float]
    precision: Literal["fp32", "bf16"]
    write: Callable[[Path], None]
    entry: str = ""
    rank: int = FRESH_RANK

    def parameters(self) -> dict[str, nn.Parameter]:
        """The trained tensors by name, in a fixed order."""
        return {name: self.backbone.model.get_parameter(name) for name in self.rates}

    def autocast(self) -> torch.autocast:
        """A new one for each forward pass: while open, it keeps using the bf16 copies it made of weights."""
        return torch.autocast(self.backbone.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def load_learner(base: str, config: AdaptConfig) -> Learner:
    """``base`` ready to be trained: a small update for minilm, all parameters for any other.

    Dropout is off. A head that the base lacks is drawn from the seed, as new factors are. Raises InputError
    when the base cannot be read or the request does not fit it.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(config.seed, "start"))
        learner = _small(base, config) if pretrained.is_embedded(base) else _whole(base, config)
    if config.length > (most := learner.backbone.max_length):
        raise InputError(f"length {config.length} is more than the {most} tokens of '{base}'; choose less.")
    for parameter in learner.parameters().values():
        parameter.requires_grad_(True)
    return learner


def _whole(base: str, config: AdaptConfig) -> Learner:
    if config.fresh:
        raise InputError(f"only minilm can start fresh; leave that out to train '{base}' further.")
    backbone = load_backbone(base, "fp32", config.device)
    names = [name for name, _ in backbone.model.named_parameters()]
    rates = dict.fromkeys(names, config.learning_rate or WHOLE_RATE)
    precision = resolve_precision(config.precision, backbone.device.type)
    return Learner(backbone, rates, precision, partial(_write_whole, backbone))


def _small(base: str, config: AdaptConfig) -> Learner:
    update = None if config.fresh else pretrained.update_of(base)
    rank = config.rank or (pretrained.rank_of(update) if update else FRESH_RANK)
    model, tokenizer = load_wrapped(rank, update)
    factors, head = FRESH_RATES if config.fresh else CONTINUED_RATES
    factors, head = config.learning_rate or factors, config.head_learning_rate or head
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    rates = {name: factors if ".lora_" in name else head for name in trained}
    backbone = Backbone(model.to(resolve_device(config.device)), tokenizer, base)
    precision = resolve_precision(config.precision, backbone.device.type)
    return Learner(backbone, rates, precision, partial(_write_small, backbone, rank), UPDATE_FILE, rank)


def _write_whole(backbone: Backbone, folder: Path) -> None:
    backbone.model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)


def _write_small(backbone: Backbone, rank: int, folder: Path) -> None:
    write_update(folder / UPDATE_FILE, backbone.model, rank)


def load_wrapped(rank: int, update: Path | None) -> tuple[Any, Any]:
    """(BertForMaskedLM, tokenizer), wrapped, with gradients asked for where the small file has tensors.

    Starts from the factors and head at ``update``, or anew from torch's random state. Raises InputError when
    ``update`` cannot be read or has factors of another rank.
    """
    model, tokenizer = pretrained.load_base()
    tensors, scale = pretrained.read_update(update) if update else ({}, SCALE)
    encoder = model.get_submodule(ENCODER)
    for name in [name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)]:
        encoder.set_submodule(name, LowRank(encoder.get_submodule(name), rank))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name or TRAINED_WHOLE.match(name) is not None)
    _start_from(dict(model.named_parameters()), tensors, scale)
    return model, tokenizer


class LowRank(nn.Module):
    """``inner(x) + (scale * x A^T) B^T``: ``inner`` itself until B has moved from zero."""

    def __init__(self, inner: nn.Linear, rank: int) -> None:
        super().__init__()
        self.inner = inner
        self.lora_A = nn.Parameter(torch.randn(rank, inner.in_features) * inner.in_features**-0.5)
        self.lora_B = nn.Parameter(torch.zeros(inner.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + F.linear(SCALE * F.linear(x, self.lora_A), self.lora_B)


@torch.no_grad()
def _start_from(parameters: dict[str, nn.Parameter], tensors: dict[str, Tensor], scale: float) -> None:
    for name, value in tensors.items():
        parameter = parameters.get(name)
        if parameter is None or parameter.shape != value.shape:
            raise InputError(f"the update to start from has an unfit {name}; take its rank, or start fresh.")
        parameter.copy_(value * (scale / SCALE) if name.endswith(".lora_B") else value)


def write_update(path: Path, model: nn.Module, rank: int) -> None:
    """The trained tensors as a safetensors file: matrices fp16, vectors fp32; equal tensors, equal bytes."""
    trained = {name: p.detach().cpu() for name, p in model.named_parameters() if p.requires_grad}
    tensors = {name: value.half() if value.dim() == 2 else value.float() for name, value in trained.items()}
    facts = {"format": "pt", "rank": str(rank), "scale": str(SCALE), "base_sha256": pretrained.BASE_SHA256}
    path.write_bytes(_sorted_header(save(tensors, facts)))


def _sorted_header(raw: bytes) -> bytes:
    """The same file with its header in name order; the library's own order changes every time."""
    size = int.from_bytes(raw[:8], "little")
    header = json.dumps(json.loads(raw[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    return raw[:8] + header.ljust(size) + raw[8 + size :]
