"""Stages by the names that the literature gives them, and lists of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter

from listflow.data.errors import nearest
from listflow.pipeline.backbone.placement import PseudoTokens
from listflow.pipeline.stages.base import Layered
from listflow.pipeline.stages.config import KINDS, AnyStage, BitFit, NoStage

_LIST: dict[str, Any] = {"init_std": 2e-4}
_FFN: dict[str, Any] = {"form": "relu", "place": ["ffn_output"], "bias": True}
_SCALED = _FFN | {"insertion": "parallel", "composition": "scaled", "init": "lora"}
_PREFIX: dict[str, Any] = {
    "form": "softmax", "place": ["attention_heads"], "insertion": "parallel", "composition": "gated", "width": 16,
}  # fmt: skip

# fmt: off
STAGE_PRESETS: dict[str, tuple[dict[str, Any], ...]] = {
    "list": (_LIST,),
    "houlsby": ({"form": "relu", "bias": True, "width": 64},),
    "pfeiffer": (_FFN | {"width": 64},),
    "parallel": (_FFN | {"insertion": "parallel", "width": 64},),
    "multihead_parallel": (
        {"form": "relu", "place": ["attention_heads"], "insertion": "parallel", "width": 30, "init": "lora"},
    ),
    "scaled_parallel": (_SCALED | {"width": 64, "scale": 4.0},),
    "lora": (
        {
            "place": ["attention_query", "attention_value"], "insertion": "parallel", "composition": "scaled",
            "scale": 2.0, "width": 16, "init": "lora",
        },
    ),
    "prefix": (_PREFIX,),
    "prefix_mlp": (_PREFIX | {"mlp": 800},),
    "prefix_neutral": (_PREFIX | {"neutral": True},),
    "mam": (_PREFIX, _SCALED | {"width": 16, "scale": 2.0}),
    "mam_seq2seq": (_PREFIX | {"width": 30, "mlp": 800}, _SCALED | {"width": 512, "scale": 4.0}),
    "soft_prompt": ({"kind": "ptuning", "encoder": "none"},),
    "soft_prompt_mlm": ({"kind": "ptuning", "encoder": "none", "aux_weight": 1.0},),
}
# fmt: on
# Every kind is a preset by its own name, besides the one that all of the above are made of.
STAGE_PRESETS |= {kind: ({"kind": kind},) for kind in KINDS if kind != "unified"}


def expand(given: Any) -> Any:
    """A preset's name, a dict whose ``kind`` is one, or a list of these, as the list of stages it stands for.

    ``layers`` over a preset holds for all its parts; no stage at all has none, whatever another preset said.
    """
    if isinstance(given, list | tuple):
        return [stage for part in given for stage in expand(part)]
    if isinstance(given, str):
        given = {"kind": given}
    if not isinstance(given, dict) or given.get("kind") == "unified":
        return [given]
    values = dict(given)
    name = str(values.pop("kind", "list"))
    if name not in STAGE_PRESETS:
        raise ValueError(f"unknown stage '{name}'; {nearest(name, [*STAGE_PRESETS, 'unified'])}")
    if name == "none":
        values.pop("layers", None)
    return [{"kind": "unified"} | preset | values for preset in STAGE_PRESETS[name]]


def _go_together(given: tuple[AnyStage, ...]) -> tuple[AnyStage, ...]:
    """``given`` itself; ValueError for stages that exclude each other."""
    if sum(isinstance(stage, PseudoTokens) for stage in given) > 1:
        raise ValueError("two stages bring pseudo tokens; a prompt has those of one")
    if sum(isinstance(stage, BitFit) for stage in given) > 1:
        raise ValueError("two stages are bitfit; a layer has one set of bias vectors")
    if len(given) > 1 and any(isinstance(stage, NoStage) for stage in given):
        raise ValueError("stage none stands alone; leave it out of the list")
    return given


Stages = Annotated[
    tuple[AnyStage, ...],
    BeforeValidator(expand),
    AfterValidator(_go_together),
    Field(min_length=1, description="a preset's name, or its values"),
]


def stages(given: Any, **values: Any) -> tuple[AnyStage, ...]:
    """The stages that a preset's name (with ``values`` over it), a dict or a list stands for; ValueError if none."""
    found: tuple[AnyStage, ...] = TypeAdapter(Stages).validate_python({"kind": given} | values if values else given)
    return found


def item_of(given: Any, number: int) -> int | None:
    """The place in the list ``given`` of what became stage ``number`` of ``expand``; None where it is no list."""
    if not isinstance(given, list | tuple):
        return None
    counts = itertools.accumulate(len(expand(part)) for part in given)
    return next(place for place, count in enumerate(counts) if number < count)


def pseudo_tokens(given: Sequence[AnyStage]) -> PseudoTokens | None:
    """The stage whose pseudo tokens a prompt must hold; None where no stage has any."""
    return next((stage for stage in given if isinstance(stage, PseudoTokens)), None)


def lives_in_layers(kind: str) -> bool:
    """Whether a stage of this name takes ``layers``."""
    parts = STAGE_PRESETS.get(kind, ({},))
    return all(issubclass(KINDS[part.get("kind", "unified")], Layered) for part in parts)
