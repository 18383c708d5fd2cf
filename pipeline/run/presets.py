"""Presets, and what lies over what: a preset's values, what suits the parts that are named, then what the user sets.

A preset is a nested dict of values; what neither it nor the user sets is the default of ``RunConfig``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from listflow.data.errors import InputError
from listflow.data.schema import Loc, refusal
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.stages.presets import item_of, lives_in_layers

# The labelled meta gradient is scaled by the inner rate 5e-6 in the public script before its 1e-6 is added, so
# on raw scores that constant is 0.2.
_RELEASED: dict[str, Any] = {"reweight": {"eps": 0.2}, "stage": {"kind": "list"}}

# fmt: off
PRESETS: dict[str, dict[str, Any]] = {
    "released": _RELEASED,
    "published": _RELEASED
    | {"stage": {"kind": "list", "init_std": 0.02}, "teacher": {"epochs": 400}, "pseudo": {"confidence": 0.8}},
    "fast": {
        "stage": {"kind": "list", "width": 16, "init_std": 0.02, "layers": "top:1"},
        "teacher": {"learning_rate": 3e-4, "epochs": 15, "batch": 10},
        "student": {
            "learning_rate": 1e-3, "steps": 200, "batch": 16, "warmup": 0.9, "cutoff": 0.2, "tail_epochs": 15,
            "tail_batch": 10,
        },
        "pseudo": {
            "teachers": "all", "confidence": 0.95, "temperature": 0.5, "prior": "teacher", "prior_errors": 1.0,
        },
        "reweight": {"batch": 30},
        "rounds": {"sample": 500},
    },
}
# The second view of the fast preset, where neither stage nor head is named.
_TEXT_STUDENT: dict[str, Any] = {
    "learning_rate": 3e-3, "steps": 200, "batch": 16, "warmup": 0.9, "cutoff": 0.0, "tail_epochs": 1, "tail_batch": 10,
}
_SURE_OF_SHARES: dict[str, Any] = {"confidence": 0.0, "prior": "shares"}
_LABEL_VECTORS: dict[str, Any] = {"kind": "prototypes", "middle": 0.5}
_COMMITTEE: dict[str, Any] = {
    "second": {"face": "text", "head": _LABEL_VECTORS, "student": _TEXT_STUDENT}, "pseudo": _SURE_OF_SHARES,
    "estimate": True, "calibrate": True,
}
# What the fast preset takes for heads that start from nothing, where a verbalizer starts from a trained masked-LM head,
# and for pseudo tokens: these need a higher rate, and a step of theirs passes through the whole backbone.
_PSEUDO_TOKENS: dict[str, Any] = {
    "teacher": {"learning_rate": 3e-3, "epochs": 30}, "student": {"learning_rate": 3e-3, "steps": 60},
    "rounds": {"sample": 200},
}
FAST_FOR: dict[str, dict[str, dict[str, Any]]] = {
    "head": {
        "linear": {"teacher": {"learning_rate": 3e-3, "epochs": 30}, "student": {"learning_rate": 3e-3}},
        "ytuning": {"teacher": {"learning_rate": 3e-5, "epochs": 30}, "student": {"learning_rate": 1e-4}},
        "prototypes": {
            "teacher": {"learning_rate": 3e-3, "epochs": 30}, "student": _TEXT_STUDENT, "pseudo": _SURE_OF_SHARES,
        },
    },
    "stage": dict.fromkeys(("ptuning", "soft_prompt", "soft_prompt_mlm", "ipt"), _PSEUDO_TOKENS),
}
# fmt: on


def build_config(preset: str = "fast", *overlays: dict[str, Any]) -> RunConfig:
    """The ``RunConfig`` of ``preset`` with ``overlays`` on top, later ones winning; InputError on a bad key."""
    if preset not in PRESETS:
        raise InputError(f"unknown preset '{preset}'; use one of: {', '.join(PRESETS)}.")
    merged: dict[str, Any] = {"head": {"kind": "verbalizer"}}
    suited = _suited(overlays) if preset == "fast" else []
    for layer in (PRESETS[preset], *suited, *overlays):
        merged = _overlay(merged, layer)
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise refusal(error, RunConfig, lambda loc: _as_written(loc, merged)) from error


def _suited(overlays: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the fast preset takes for what ``overlays`` name; a committee where they name nothing that is trained."""
    stages, heads = _kinds_of("stage", overlays), _kinds_of("head", overlays)
    alone = any("face" in overlay or not overlay.get("second", True) for overlay in overlays)
    if not stages and not heads and not alone:
        return [_COMMITTEE]
    found = [FAST_FOR[part].get(kind, {}) for part in FAST_FOR for kind in _kinds_of(part, overlays)]
    if heads == ["prototypes"] and set(stages) <= {"none"}:
        found.append({"face": "text", "stage": {"kind": "none"}, "head": _LABEL_VECTORS})
    if any(overlay.get("second") for overlay in overlays):
        found.append(_COMMITTEE)
    return found


def _as_written(loc: Loc, values: dict[str, Any]) -> Loc:
    """``loc`` with the number of a stage as the user counts: a preset may stand for several, and one has none."""
    if loc[:1] != ("stage",) or len(loc) == 1 or not isinstance(loc[1], int):
        return loc
    item = item_of(values["stage"], loc[1])
    return ("stage", *loc[2:]) if item is None else ("stage", item, *loc[2:])


def _overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if key in {"stage", "head"} and isinstance(value, str):
            value = {"kind": value}
        if key == "stage" and isinstance(value, list | tuple) and isinstance(merged.get(key), dict):
            value = [_with_layers(merged[key], item) for item in value]
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        if nested:
            under = _of_kind(merged[key], value) if key in {"stage", "head"} else merged[key]
            value = _overlay(under, value)
        merged[key] = value
    return merged


def _kinds_of(part: str, overlays: Sequence[dict[str, Any]]) -> list[str]:
    """The kinds of the stages, or of the head, that the last overlay to name any asks for."""
    for overlay in reversed(overlays):
        given = overlay.get(part)
        items = given if isinstance(given, list | tuple) else [given]
        kinds = [item.get("kind") if isinstance(item, dict) else item for item in items]
        if named := [kind for kind in kinds if kind and isinstance(kind, str)]:
            return named
    return []


def _with_layers(below: dict[str, Any], item: Any) -> Any:
    """``item`` of a list of stages in the layers that ``below`` chose, where it lives in layers and names none."""
    stage = {"kind": item} if isinstance(item, str) else item
    return _of_kind(below, stage) | stage if isinstance(stage, dict) and "kind" in stage else item


def _of_kind(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """What of a stage or head stays when ``above`` may name another kind: everything, or its layers alone."""
    kind = above.get("kind", below.get("kind"))
    if kind == below.get("kind"):
        return below
    return {key: value for key, value in below.items() if key == "layers" and lives_in_layers(str(kind))}
