"""A backbone about to be trained: which of its tensors move, at what rate, and how the result is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from listflow.data.errors import InputError
from listflow.pipeline import lowrank, minilm
from listflow.pipeline.adapt_config import AdaptConfig
from listflow.pipeline.backbone.backbone import Backbone, load_backbone, resolve_device, resolve_precision
from listflow.pipeline.seeds import seed_for

UPDATE_FILE = "mlm.safetensors"
WHOLE_RATE = 5e-5
# Of the factors, and of head and LayerNorms. An update that has converged is thrown back by the first pair.
FRESH_RATES, CONTINUED_RATES = (1e-3, 2e-3), (3e-4, 3e-4)


@dataclass(frozen=True)
class Learner:
    """``rates``: peak rate of each trained tensor. ``write`` fills a folder, whose ``entry`` is the result."""

    backbone: Backbone
    rates: dict[str, float]
    precision: Literal["fp32", "bf16"]
    write: Callable[[Path], None]
    entry: str = ""

    def parameters(self) -> dict[str, nn.Parameter]:
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
        small = base == "minilm" or base.endswith(".safetensors")
        learner = _small(base, config) if small else _whole(base, config)
    if config.length > (most := learner.backbone.max_length):
        raise InputError(f"length {config.length} is more than the {most} tokens of '{base}'; choose less.")
    for parameter in learner.parameters().values():
        parameter.requires_grad_(True)
    return learner


def _small(base: str, config: AdaptConfig) -> Learner:
    update = minilm.shipped_update() if base == "minilm" else Path(base).expanduser()
    model, tokenizer = lowrank.load_wrapped(config.rank, None if config.fresh else update)
    factors, head = FRESH_RATES if config.fresh else CONTINUED_RATES
    factors, head = config.learning_rate or factors, config.head_learning_rate or head
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    rates = {name: factors if ".lora_" in name else head for name in trained}
    backbone = Backbone(model.to(resolve_device(config.device)), tokenizer, base)
    precision = resolve_precision(config.precision, backbone.device.type)
    return Learner(backbone, rates, precision, partial(_write_small, backbone, config.rank), UPDATE_FILE)


def _whole(base: str, config: AdaptConfig) -> Learner:
    if config.fresh:
        raise InputError(f"only minilm can start fresh; leave that out to train '{base}' further.")
    backbone = load_backbone(base, "fp32", config.device)
    names = [name for name, _ in backbone.model.named_parameters()]
    rates = dict.fromkeys(names, config.learning_rate or WHOLE_RATE)
    precision = resolve_precision(config.precision, backbone.device.type)
    return Learner(backbone, rates, precision, partial(_write_whole, backbone))


def _write_small(backbone: Backbone, rank: int, folder: Path) -> None:
    lowrank.write_update(folder / UPDATE_FILE, backbone.model, rank)


def _write_whole(backbone: Backbone, folder: Path) -> None:
    backbone.model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
