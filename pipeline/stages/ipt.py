"""Intrinsic prompt tuning: a prompt that can only move within a subspace found on other tasks (arXiv 2110.07867).

The pseudo tokens are Dec(z) with a frozen decoder; the coordinates z are all that is trained.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.method import tape
from listflow.pipeline.pseudo_tokens import Intrinsic, PTuning
from listflow.pipeline.stages.ptuning import insert
from listflow.pipeline.subspace import load_decoder

START_STD = 0.02  # of random coordinates, as in the authors' code


def attach(view: nn.Module, depth: int, backbone: Backbone, config: Intrinsic, generator: torch.Generator) -> nn.Module:
    """The ``IntrinsicPrompt`` whose vectors now stand for negative token ids in ``view``, which holds all layers."""
    prompt = IntrinsicPrompt(config, backbone.device, generator)
    insert(prompt, view, backbone)
    return prompt


class IntrinsicPrompt(nn.Module):
    """The vectors (n, E) = Dec(z) of n pseudo tokens; z (d_I,) is the only parameter."""

    def __init__(self, config: Intrinsic, device: torch.device, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        decoder, start = load_decoder(config)
        # In a tuple: the decoder is shared, and neither trained nor saved with a model.
        self.decoder = (decoder.to(device),)
        if config.start == "random":
            start = torch.empty_like(start).normal_(std=START_STD, generator=generator)
        self.z = nn.Parameter(start.clone())

    def vectors(self) -> Tensor:
        """(n, E), with the graph to z."""
        found: Tensor = self.decoder[0](self.z)
        return found

    def forward(self, like: Tensor) -> Tensor:
        """(1 or B, n, E)."""
        return tape.generated(self.vectors(), [self.z], like)

    @torch.no_grad()
    def flat(self) -> tuple[PTuning, dict[str, Tensor]]:
        """(config, tensors) of a plain soft prompt that gives the same logits: what predicting needs."""
        config = PTuning(tokens=self.config.tokens, place=self.config.place, encoder="none")
        return config, {"embedding": self.vectors().detach().cpu().clone()}
