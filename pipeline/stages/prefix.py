"""Changes to the output of attention heads: the prefix, as a gated parallel adapter, and its multi-head relative.

A prefix of l keys and values per layer gives concat-attention = (1 - lam) Attn(q, K, V) + lam Attn(q, P_k, P_v) with
lam = sigmoid(logsumexp(prefix scores) - logsumexp(content scores)) (arXiv 2110.04366, eqs. 5-7): the same numbers as
prepending P_k and P_v, with position ids left alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from listflow.pipeline.method import tape
from listflow.pipeline.stages.bottleneck import ACTIVATIONS, start
from listflow.pipeline.stages.config import Unified


class Prefix(nn.Module):
    """An extra of ``SelfAttention``: mixes in attention over the keys and values that ``source`` gives."""

    def __init__(self, source: nn.Module, config: Unified) -> None:
        super().__init__()
        self.source, self.gated = source, config.composition == "gated"
        self.scale = config.scale
        self.gate = nn.Parameter(torch.zeros(())) if config.neutral else None

    def forward(self, query: Tensor, scores: Tensor, found: Tensor) -> Tensor:
        key, value = (x.unflatten(-1, (query.shape[1], -1)).transpose(1, 2) for x in self.source(query))
        own = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        change = own.softmax(-1) @ value
        if not self.gated:
            return found + self.scale * change
        share = torch.sigmoid(own.logsumexp(-1, keepdim=True) - scores.logsumexp(-1, keepdim=True))
        if self.gate is not None:
            share = share * torch.tanh(tape.per_example(self.gate, query))
        return found + share * (change - found)


class FlatPrefix(nn.Module):
    """Keys and values (l, D) of one layer, trained as they are."""

    def __init__(self, hidden: int, config: Unified, generator: torch.Generator) -> None:
        super().__init__()
        self.key = nn.Parameter(torch.empty(config.width, hidden).normal_(std=config.init_std, generator=generator))
        self.value = nn.Parameter(torch.empty(config.width, hidden).normal_(std=config.init_std, generator=generator))
        if config.init == "lora":
            nn.init.zeros_(self.value)

    def forward(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Each (1 or B, l, D)."""
        return tape.per_row(self.key, like), tape.per_row(self.value, like)


class PrefixOfLayer(nn.Module):
    """The keys and values of one layer out of a ``SharedPrefix``."""

    def __init__(self, shared: SharedPrefix, place: int) -> None:
        super().__init__()
        self.shared, self.place = shared, place

    def forward(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Each (1 or B, l, D)."""
        both = tape.generated(self.shared.of_layer(self.place), self.shared.behind(self.place), like)
        return both[:, 0], both[:, 1]


class SharedPrefix(nn.Module):
    """All layers' keys and values from one embedding through an MLP: (l, D) -> hidden -> tanh -> (l, 2 D) a layer."""

    def __init__(self, hidden: int, layers: int, config: Unified, generator: torch.Generator) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(config.width, hidden).normal_(std=1.0, generator=generator))
        self.first = nn.Linear(hidden, config.mlp)
        # A map for each layer, as the gradient of a slice is as large as what it was cut from.
        last = [nn.Linear(config.mlp, 2 * hidden) for _ in range(layers)]
        self.second = nn.ModuleList(last)
        for linear in (self.first, *last):
            nn.init.normal_(linear.weight, std=config.init_std, generator=generator)
            nn.init.zeros_(linear.bias)
        if config.init == "lora":
            for linear in last:
                nn.init.zeros_(linear.weight[hidden:])  # all values, no key

    def of_layer(self, place: int) -> Tensor:
        """(2, l, D): key and value of the layer at ``place`` among those that have a prefix."""
        both: Tensor = self.second[place](torch.tanh(self.first(self.embedding)))
        return both.unflatten(-1, (2, -1)).transpose(0, 1)

    def behind(self, place: int) -> tuple[nn.Parameter, ...]:
        """What ``of_layer`` is made of."""
        return (self.embedding, *self.first.parameters(), *self.second[place].parameters())


@torch.no_grad()
def flat_prefix(changes: nn.ModuleList, config: Unified) -> tuple[Unified, dict[str, Tensor]]:
    """(config, tensors) of a prefix without its MLP that gives the logits of ``changes``: what predicting needs."""
    shared, *prefixes = changes
    assert isinstance(shared, SharedPrefix)
    tensors: dict[str, Tensor] = {}
    for place, prefix in enumerate(prefixes):
        key, value = shared.of_layer(place).cpu()
        tensors |= {f"{place}.source.key": key.clone(), f"{place}.source.value": value.clone()}
        if isinstance(prefix, Prefix) and prefix.gate is not None:
            tensors[f"{place}.gate"] = prefix.gate.detach().cpu().clone()
    return config.model_copy(update={"mlp": 0}), tensors


class HeadBottleneck(nn.Module):
    """An extra of ``SelfAttention``: f(q W_d) W_u for every head by itself, as many numbers as a prefix of l = r."""

    def __init__(self, hidden: int, heads: int, config: Unified, generator: torch.Generator) -> None:
        super().__init__()
        size = hidden // heads
        self.down = nn.Parameter(torch.empty(heads, size, config.width))
        self.up = nn.Parameter(torch.empty(heads, config.width, size))
        start(self.down, self.up, config, generator)
        self.activation, self.scale = ACTIVATIONS[config.form], config.scale

    def forward(self, query: Tensor, scores: Tensor, found: Tensor) -> Tensor:
        down, up = tape.per_example(self.down, query), tape.per_example(self.up, query)
        return found + self.scale * (self.activation(query @ down) @ up)
