"""Intrinsic prompt tuning: a prompt that can only move within a subspace found on other tasks (arXiv 2110.07867).

The pseudo tokens are Dec(z) with a frozen decoder; the coordinates z are all that is trained. The subspace is an
auto-encoder of prompts of n vectors of size E to and from d_I numbers. As in the authors' code, Enc is one linear map
and Dec is linear, tanh, linear. On disk:

FOLDER/subspace/  decoder.safetensors  encoder.safetensors  manifest.json
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import Backbone, Identity
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.method import tape
from listflow.pipeline.stages.config import AnyStage, Intrinsic, PTuning
from listflow.pipeline.stages.ptuning import insert
from listflow.pipeline.storage.checkpoint import load_tensors, new_folder, save_tensors, verified

WHOLE, DECODER, ENCODER = "subspace", "decoder.safetensors", "encoder.safetensors"
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


def pinned(stage: Intrinsic) -> Intrinsic:
    """``stage`` with an absolute path to its subspace and the digest of its decoder.

    InputError where there is none, or another than the one that ``stage`` was pinned to.
    """
    folder = str(Path(stage.subspace).expanduser().resolve())
    digest = _manifest(folder)["files"][DECODER]
    if stage.decoder not in {"", digest}:
        raise InputError(
            f"stage.subspace {folder} holds another decoder than the one this run was started with; restore that "
            "folder, or start a new run."
        )
    return stage.model_copy(update={"subspace": folder, "decoder": digest})


def check_subspace(stages: Sequence[AnyStage], backbone: Backbone, prompt: Prompt) -> None:
    """InputError for a subspace of another backbone, prompt length or layout of the template."""
    for stage in stages:
        if isinstance(stage, Intrinsic):
            _check(stage, read_origin(stage.subspace), backbone, prompt.layout)


def _check(stage: Intrinsic, origin: Origin, backbone: Backbone, layout: str) -> None:
    where = f"stage.subspace {stage.subspace}"
    if not backbone.identity().is_of(origin):
        raise InputError(
            f"{where} was found on backbone '{origin.backbone}', and this run's '{backbone.name}' is another; "
            "find one for it with `listflow subspace`."
        )
    if origin.tokens != stage.tokens:
        raise InputError(
            f"{where} makes prompts of {origin.tokens} tokens and stage.tokens is {stage.tokens}; "
            f"set stage.tokens={origin.tokens}."
        )
    if layout not in origin.layouts:
        known = ", ".join(f"'{known}'" for known in origin.layouts)
        raise InputError(
            f"{where} was found for templates with the layout {known}, and this one is '{layout}'; "
            "change stage.place or the template."
        )


class Origin(Identity):
    """What a subspace was found for: prompts of so many tokens, on this backbone, standing in these layouts."""

    tokens: int
    dim: int
    backbone: str
    layouts: tuple[str, ...]
    tasks: tuple[str, ...]


def read_origin(folder: str | Path) -> Origin:
    """What the subspace in ``folder`` was found for; InputError when there is none."""
    return Origin.of(_manifest(str(folder)))


def load_decoder(config: Intrinsic) -> tuple[Decoder, Tensor]:
    """(frozen decoder, start (d_I,)) that a pinned ``config`` names."""
    return _decoder(config.subspace, config.decoder, config.tokens)


@lru_cache(maxsize=4)
def _decoder(folder: str, digest: str, tokens: int) -> tuple[Decoder, Tensor]:
    """Kept: teacher and students of a run share one decoder, as they share the backbone."""
    if digest != _manifest(folder)["files"][DECODER]:
        raise InputError(
            f"stage.subspace {folder} holds another decoder than the one that the coordinates were trained for; "
            "restore that folder, or start a new run."
        )
    tensors = load_tensors(Path(folder) / WHOLE / DECODER)
    start = tensors.pop("start")
    return Decoder.of(tensors, tokens), start


def load_auto_encoder(folder: Path) -> AutoEncoder:
    """The frozen auto-encoder of the subspace in ``folder``; InputError when there is none."""
    tokens = read_origin(folder).tokens
    encoder, decoder = (load_tensors(folder / WHOLE / name) for name in (ENCODER, DECODER))
    del decoder["start"]
    return AutoEncoder.of(encoder, decoder, tokens)


def save_subspace(folder: Path, auto: AutoEncoder, prompts: Tensor, origin: Origin, facts: dict[str, object]) -> None:
    """Writes FOLDER/subspace whole; coordinates of a new task begin at the mean of those of ``prompts`` (N, n, E)."""
    with torch.no_grad():
        start = auto.encode(prompts).mean(0)
    decoder = {name: value.detach().cpu() for name, value in auto.decoder.state_dict().items()}
    encoder = {name: value.detach().cpu() for name, value in auto.encoder.state_dict().items()}
    with new_folder(folder / WHOLE, {"kind": "subspace", **origin.model_dump(), **facts}) as aside:
        save_tensors(aside / DECODER, decoder | {"start": start.cpu()})
        save_tensors(aside / ENCODER, encoder)


def _manifest(folder: str) -> dict[str, Any]:
    """That of the subspace in ``folder``; InputError when there is none, or a damaged one."""
    manifest = verified(Path(folder) / WHOLE)
    if manifest is None or manifest.get("kind") != "subspace":
        raise InputError(f"stage.subspace {folder} holds no whole subspace; make one with `listflow subspace`.")
    return manifest
