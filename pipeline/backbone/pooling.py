"""How the makers of a sentence encoder meant its tokens to become one vector, as its folder says.

Read where they are there: modules.json, N_Pooling/config.json, config_sentence_transformers.json,
sentence_bert_config.json. Without them: the mean of the tokens, normalised. What is not read is refused: without it the
vectors would be others than those that their makers trained.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from listflow.data.errors import InputError
from listflow.data.schema import Section
from listflow.pipeline.backbone.pretrained import base_folder, is_embedded

MODULES, PROMPTS, LIMITS = "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"
# The prompts, by their names in the file, that a text wants which is to be told apart from others.
WANTED_PROMPTS = ("classification", "Classification", "clustering")
LONGEST_PREFIX = 2000


Mode = Literal["mean", "first", "max", "mean_sqrt", "weighted", "last"]
# By their names in N_Pooling/config.json: a flag each, or one word.
FLAGS: dict[str, Mode] = {
    "pooling_mode_cls_token": "first", "pooling_mode_mean_tokens": "mean", "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt", "pooling_mode_weightedmean_tokens": "weighted",
    "pooling_mode_lasttoken": "last",
}  # fmt: skip
NAMED: dict[str, Mode] = {
    "cls": "first", "mean": "mean", "max": "max", "mean_sqrt_len_tokens": "mean_sqrt", "weightedmean": "weighted",
    "lasttoken": "last",
}  # fmt: skip
READ = {"Transformer", "Pooling", "Normalize"}


class Pooling(Section):
    """Tokens to one vector; ``prefix`` stands before every text, of which ``max_length`` tokens are read at most.

    ``mean_sqrt`` is the sum over the root of how many there are; ``weighted`` the mean with weights 1, 2, 3, ...
    """

    mode: Mode = "mean"
    normalised: bool = True
    prefix: str = ""
    lower: bool = False
    max_length: int | None = None

    def pool(self, hidden: Tensor, attention: Tensor) -> Tensor:
        """(B, D) fp32 sentence embeddings of hidden states (B, T, D) whose real tokens ``attention`` (B, T) marks."""
        found, seen = hidden.float(), attention.unsqueeze(-1)
        if self.mode == "first":
            found = found[:, 0]
        elif self.mode == "max":
            found = found.masked_fill(seen == 0, float("-inf")).amax(1)
        elif self.mode == "last":
            found = found[torch.arange(found.shape[0], device=found.device), attention.sum(1) - 1]
        elif self.mode == "mean_sqrt":
            found = (found * seen).sum(1) / seen.sum(1).clamp_min(1).sqrt()
        elif self.mode == "weighted":
            weights = seen * seen.cumsum(1)
            found = (found * weights).sum(1) / weights.sum(1).clamp_min(1)
        else:
            found = (found * seen).sum(1) / seen.sum(1).clamp_min(1)
        return F.normalize(found, dim=-1) if self.normalised else found


def read_pooling(backbone: str) -> Pooling:
    """The ``Pooling`` of a backbone's name; InputError where a file that says it is damaged."""
    folder = base_folder() if is_embedded(backbone) else Path(backbone).expanduser()
    try:
        return _pooling(backbone, folder)
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        raise InputError(
            f"the sentence files of backbone '{backbone}' say something else than how tokens are pooled "
            f"({type(error).__name__}); restore them, or remove the sentence files."
        ) from error


def _pooling(backbone: str, folder: Path) -> Pooling:
    modules = _read(backbone, folder, MODULES)
    if modules is None:
        return Pooling()
    kinds = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in modules}
    _check_kinds(backbone, kinds)
    modes = _read(backbone, folder, f"{kinds.get('Pooling', '1_Pooling')}/config.json") or {}
    limits = _read(backbone, folder, LIMITS) or {}
    prefix = _prefix(_read(backbone, folder, PROMPTS) or {})
    if prefix and modes.get("include_prompt") is False:
        raise InputError(
            f"the sentence encoder of backbone '{backbone}' leaves its prompt out when it pools (include_prompt), "
            "which is not read here; take another backbone, or remove its prompts."
        )
    return Pooling(
        mode=_mode(backbone, modes),
        normalised="Normalize" in kinds,
        prefix=prefix,
        lower=bool(limits.get("do_lower_case", False)),
        max_length=limits.get("max_seq_length"),
    )


def _check_kinds(backbone: str, kinds: dict[str, str]) -> None:
    """InputError for a module that makes another vector of the pooled one, or pools by another rule."""
    other = next((kind for kind in kinds if kind not in READ), None)
    if other:
        raise InputError(
            f"the sentence encoder of backbone '{backbone}' has a module {other} ({MODULES}), which is not read here, "
            f"so that its vectors would be others; take another backbone, or remove {other} from {MODULES}."
        )


def _mode(backbone: str, modes: dict[str, Any]) -> Mode:
    """The one that is set, of either form; the mean where none is."""
    said = modes.get("pooling_mode")
    names = [said] if isinstance(said, str) else list(said or ())
    found = [NAMED.get(name) for name in names] or [mode for flag, mode in FLAGS.items() if modes.get(flag)]
    chosen = found[0] if found else "mean"
    if len(found) > 1 or chosen is None:
        words = " and ".join(names or [flag for flag in FLAGS if modes.get(flag)])
        raise InputError(
            f"the sentence encoder of backbone '{backbone}' pools by {words}, which is not read here; take another "
            "backbone, or set one of its pooling modes alone."
        )
    return chosen


def _prefix(said: dict[str, Any]) -> str:
    prompts = said.get("prompts") or {}
    names = (said.get("default_prompt_name"), *WANTED_PROMPTS)
    return next((str(prompts[name])[:LONGEST_PREFIX] for name in names if name in prompts), "")


def _read(backbone: str, folder: Path, name: str) -> Any:
    """The JSON of a file of the folder, or of the hub id ``backbone``; None where it is not there."""
    path: Path | None = folder / name
    if not folder.is_dir():
        from transformers.utils import cached_file

        found = cached_file(
            backbone, name, _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )  # fmt: skip
        path = Path(found) if found else None
    if path is None or not path.is_file():
        return None
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); restore it, or remove the sentence files.") from error


def joined(first: Tensor, second: Tensor) -> Tensor:
    """(N, 1 + 3 D) features of pairs of embeddings (N, D): their cosine, |u - v|, u * v, and (u - v) / 2.

    The last one tells a pair from its reverse, as whether one text follows from the other asks.
    """
    cosine, apart = F.cosine_similarity(first, second, dim=-1).unsqueeze(-1), first - second
    return torch.cat([cosine, apart.abs(), first * second, apart / 2], dim=-1)
