"""The auto-encoder of intrinsic prompt tuning: prompts of n vectors to and from d_I numbers (arXiv 2110.07867).

As in the authors' code: Enc is one linear map, Dec is linear, tanh, linear. n tokens, E size of an embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Decoder(nn.Module):
    """(..., d_I) -> (..., n, E). Bounded: tanh keeps every entry within the row sums of the last map's weights."""

    def __init__(self, dim: int, hidden: int, tokens: int, size: int) -> None:
        super().__init__()
        self.shape = (tokens, size)
        self.widen, self.out = nn.Linear(dim, hidden), nn.Linear(hidden, tokens * size)

    @property
    def dim(self) -> int:
        """d_I."""
        return self.widen.in_features

    def forward(self, z: Tensor) -> Tensor:
        flat: Tensor = self.out(self.widen(z).tanh())
        return flat.unflatten(-1, self.shape)

    @staticmethod
    def of(tensors: dict[str, Tensor], tokens: int) -> Decoder:
        """The frozen decoder with these weights."""
        hidden, dim = tensors["widen.weight"].shape
        with torch.device("meta"):
            decoder = Decoder(dim, hidden, tokens, len(tensors["out.bias"]) // tokens)
        decoder.load_state_dict(tensors, assign=True)
        return decoder.requires_grad_(False)


class AutoEncoder(nn.Module):
    """P (..., n, E) -> (P* (..., n, E), z (..., d_I))."""

    def __init__(self, dim: int, hidden: int, tokens: int, size: int) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(tokens * size, dim), Decoder(dim, hidden, tokens, size)

    def encode(self, prompts: Tensor) -> Tensor:
        """The coordinates z (..., d_I) of prompts (..., n, E)."""
        found: Tensor = self.encoder(prompts.flatten(-2))
        return found

    def forward(self, prompts: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encode(prompts)
        return self.decoder(z), z

    @staticmethod
    def of(encoder: dict[str, Tensor], decoder: dict[str, Tensor], tokens: int) -> AutoEncoder:
        """The frozen auto-encoder with these weights."""
        part = Decoder.of(decoder, tokens)
        with torch.device("meta"):
            auto = AutoEncoder(part.dim, part.widen.out_features, *part.shape)
        auto.encoder.load_state_dict(encoder, assign=True)
        auto.decoder = part
        return auto.requires_grad_(False)
