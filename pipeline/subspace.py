"""A subspace of prompts on disk, and whether a run's prompts can lie in it.

FOLDER/subspace/  decoder.safetensors  encoder.safetensors  manifest.json
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from listflow.data.errors import InputError
from listflow.pipeline.autoencoder import AutoEncoder, Decoder
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.identity import Identity
from listflow.pipeline.pseudo_tokens import Intrinsic
from listflow.pipeline.stages.config import AnyStage
from listflow.pipeline.storage.checkpoint import load_tensors, new_folder, save_tensors, verified

WHOLE, DECODER, ENCODER = "subspace", "decoder.safetensors", "encoder.safetensors"


class Origin(Identity):
    """What a subspace was found for: prompts of so many tokens, on this backbone, standing in these layouts."""

    tokens: int
    dim: int
    backbone: str
    layouts: tuple[str, ...]
    tasks: tuple[str, ...]


def save_subspace(folder: Path, auto: AutoEncoder, prompts: Tensor, origin: Origin, facts: dict[str, object]) -> None:
    """Writes FOLDER/subspace whole; coordinates of a new task begin at the mean of those of ``prompts`` (N, n, E)."""
    with torch.no_grad():
        start = auto.encode(prompts).mean(0)
    decoder = {name: value.detach().cpu() for name, value in auto.decoder.state_dict().items()}
    encoder = {name: value.detach().cpu() for name, value in auto.encoder.state_dict().items()}
    with new_folder(folder / WHOLE, {"kind": "subspace", **origin.model_dump(), **facts}) as aside:
        save_tensors(aside / DECODER, decoder | {"start": start.cpu()})
        save_tensors(aside / ENCODER, encoder)


def load_decoder(config: Intrinsic) -> tuple[Decoder, Tensor]:
    """(frozen decoder, start (d_I,)) that a pinned ``config`` names."""
    return _decoder(config.subspace, config.decoder, config.tokens)


def load_auto_encoder(folder: Path) -> AutoEncoder:
    """The frozen auto-encoder of the subspace in ``folder``; InputError when there is none."""
    tokens = read_origin(folder).tokens
    encoder, decoder = (load_tensors(folder / WHOLE / name) for name in (ENCODER, DECODER))
    del decoder["start"]
    return AutoEncoder.of(encoder, decoder, tokens)


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


def read_origin(folder: str | Path) -> Origin:
    """What the subspace in ``folder`` was found for; InputError when there is none."""
    return Origin.of(_manifest(str(folder)))


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


def _manifest(folder: str) -> dict[str, Any]:
    manifest = verified(Path(folder) / WHOLE)
    if manifest is None or manifest.get("kind") != "subspace":
        raise InputError(f"stage.subspace {folder} holds no whole subspace; make one with `listflow subspace`.")
    return manifest
