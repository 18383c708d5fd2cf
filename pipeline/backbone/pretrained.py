"""A masked language model from a folder or the hub, or an encoder that was saved without a masked-LM head."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from listflow.data.errors import InputError
from listflow.pipeline.backbone.families import Family, family_of

HINT = "pass a local folder with config, tokenizer and safetensors files, or --backbone minilm"


def load(name: str) -> tuple[Any, Any, bool]:
    """(fp32 masked LM, tokenizer, whether its masked-LM head was saved with it) of a folder or hub id.

    A head that was not saved is drawn at random, by torch's global generator. InputError for what cannot be read, for a
    family that this project does not know, and for an encoder or tokenizer that lacks a part.
    """
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

    folder = Path(name).expanduser()
    if ("/" not in name or name.startswith((".", "/", "~"))) and not folder.is_dir():
        raise InputError(f"backbone '{name}' is neither 'minilm' nor a folder nor a hub id (owner/name); {HINT}.")
    where = str(folder) if folder.is_dir() else name
    try:
        family = family_of(AutoConfig.from_pretrained(where))
        model, info = AutoModelForMaskedLM.from_pretrained(
            where, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(where)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"backbone '{name}' cannot be loaded ({reason}); {HINT}.") from error
    _check(name, tokenizer, [key for key in info["missing_keys"] if key.startswith(f"{model.base_model_prefix}.")])
    return model, tokenizer, not _lacks_head(family, info["missing_keys"])


def _check(name: str, tokenizer: Any, missing: list[str]) -> None:
    if missing:
        raise InputError(f"backbone '{name}' has no weights for {min(missing)} of its encoder; save it whole again.")
    for token in ("cls", "sep", "mask", "pad"):
        if getattr(tokenizer, f"{token}_token_id") is None:
            raise InputError(f"the tokenizer of backbone '{name}' has no {token} token; add one, or take another.")


def _lacks_head(family: Family, missing: Iterable[str]) -> bool:
    """A decoder bias alone may be missing: it is zero then, not random."""
    return any(key.startswith((family.head_dense, family.head_norm)) for key in missing)
