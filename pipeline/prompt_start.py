"""Pseudo tokens that start from the prompt of another run: stage two of intrinsic prompt tuning, or any transfer.

A finished run keeps its prompt as plain vectors (see ``pipeline/export.py``), so this also starts from Dec(z).
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from data.errors import InputError
from pipeline.checkpoint import load_tensors, verified
from pipeline.pseudo_tokens import PTuning

WEIGHTS = "weights.safetensors"


def pinned_start(stage: PTuning) -> PTuning:
    """``stage`` with an absolute path to the run it starts from, and the digest of that run's final weights.

    InputError when that run is not finished, or is no longer the one that ``stage`` was pinned to.
    """
    if stage.start != "prompt":
        return stage
    folder = Path(stage.prompt).expanduser().resolve()
    digest = _digest(folder)
    if stage.digest not in {"", digest}:
        raise InputError(
            f"stage.prompt {folder} holds another model than the one this run was started with; restore that folder, "
            "or start a new run."
        )
    return stage.model_copy(update={"prompt": str(folder), "digest": digest})


def start_from(stage: PTuning, size: int) -> Tensor:
    """(n, E) fp32: the trained prompt of the run that a pinned ``stage`` names; InputError where it does not fit."""
    tensors = load_tensors(Path(stage.prompt) / "final" / WEIGHTS)
    found = [value for name, value in tensors.items() if name.startswith("stage.") and name.endswith(".embedding")]
    if len(found) != 1:
        raise InputError(f"stage.prompt {stage.prompt} has no prompt of its own; name a run with pseudo tokens.")
    tokens, own = found[0].shape
    if tokens != stage.tokens:
        raise InputError(
            f"stage.prompt {stage.prompt} has {tokens} pseudo tokens and stage.tokens is {stage.tokens}; "
            f"set stage.tokens={tokens}."
        )
    if own != size:
        raise InputError(
            f"stage.prompt {stage.prompt} was trained on a backbone with embeddings of {own} numbers, and this one has "
            f"{size}; name a run on the same backbone."
        )
    return found[0].float().clone()


def _digest(folder: Path) -> str:
    manifest = verified(folder / "final")
    if manifest is None:
        raise InputError(f"stage.prompt {folder} holds no finished model; finish that run with `listflow resume`.")
    return str(manifest["files"][WEIGHTS])
