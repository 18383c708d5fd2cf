"""What a stage can be: typed values, the named presets of the literature, and the reasons why some make no sense.

What attaches a stage is imported when a model is built: whoever reads configurations should not wait for torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, model_validator

from listflow.data.schema import Section, nearest
from listflow.pipeline.pseudo_tokens import Intrinsic, PseudoTokens, PTuning
from listflow.pipeline.stages.base import Layered

if TYPE_CHECKING:
    import torch
    from torch import nn

    from listflow.pipeline.backbone.backbone import Backbone

Place = Literal[
    "embeddings", "attention_query", "attention_key", "attention_value", "attention_heads", "attention_output",
    "ffn_intermediate", "ffn_output",
]  # fmt: skip


class Unified(Layered):
    """One point of the unified family (arXiv 2110.04366, table 1): form, place, insertion, composition."""

    kind: Literal["unified"] = "unified"
    form: Literal["linear", "relu", "gelu", "softmax"] = Field("linear", description="softmax: a prefix")
    place: tuple[Place, ...] = Field(("attention_output", "ffn_output"), min_length=1, description="what it modifies")
    insertion: Literal["sequential", "parallel"] = Field(
        "sequential", description="reads what it modifies, or the input of that sub-layer"
    )
    composition: Literal["add", "scaled", "gated"] = Field("add", description="gated: softmax only")
    width: int = Field(128, ge=1, le=4096, description="bottleneck r, or prefix length l")
    scale: float = Field(1.0, gt=0, le=100, description="s of the scaled composition")
    learned_scale: bool = Field(False, description="let s be trained, from its value here")
    bias: bool = Field(False, description="biases in the bottleneck")
    init: Literal["normal", "lora"] = Field("normal", description="lora: the upper factor starts at zero")
    init_std: float = Field(0.02, gt=0, le=1, description="standard deviation of a normal start")
    mlp: int = Field(0, ge=0, le=4096, description="train a prefix through an MLP of this hidden size; 0: flat")
    neutral: bool = Field(False, description="a gate from zero, so that a prefix starts as the identity")

    @model_validator(mode="after")
    def _makes_sense(self) -> Unified:
        softmax, heads = self.form == "softmax", "attention_heads" in self.place
        problems = {
            "place names one place twice": len(set(self.place)) < len(self.place),
            "form softmax is a prefix and belongs at place attention_heads alone": softmax
            and set(self.place) != {"attention_heads"},
            "composition gated is the softmax of a prefix; use add or scaled": self.composition == "gated"
            and not softmax,
            "place attention_heads has no sequential insertion; use parallel": heads and self.insertion == "sequential",
            "place embeddings has no parallel insertion; use sequential": "embeddings" in self.place
            and self.insertion == "parallel",
            "mlp and neutral belong to form softmax": not softmax and bool(self.mlp or self.neutral),
            "neutral belongs to the gated composition; add starts neutral with init lora": self.neutral
            and self.composition != "gated",
            "bias and learned_scale are not for place attention_heads": heads and (self.bias or self.learned_scale),
            "scale and learned_scale belong to the scaled composition": self.composition != "scaled"
            and (self.learned_scale or self.scale != 1.0),
        }
        for reason, wrong in problems.items():
            if wrong:
                raise ValueError(reason)
        return self

    def lowest(self, count: int) -> int:
        """0 where the embeddings are touched."""
        return 0 if "embeddings" in self.place else super().lowest(count)

    @property
    def starts_as_identity(self) -> Literal["exact", "near", "no"]:
        """Whether the backbone gives the same logits with it as without it, before it is trained."""
        if self.form == "softmax":
            return "exact" if self.neutral or (self.composition != "gated" and self.init == "lora") else "no"
        if self.init == "lora":
            return "exact"
        return "near" if self.init_std < 1e-3 else "no"

    def attach(self, view: nn.Module, depth: int, backbone: Backbone, generator: torch.Generator) -> nn.Module:
        """See ``pipeline/stages/unified.py``."""
        from listflow.pipeline.stages import unified

        return unified.attach(view, depth, backbone, self, generator)


class BitFit(Layered):
    """All bias vectors of the layers, LayerNorm's too (arXiv 2106.10199)."""

    kind: Literal["bitfit"] = "bitfit"

    @property
    def starts_as_identity(self) -> Literal["exact"]:
        return "exact"

    def attach(self, view: nn.Module, depth: int, backbone: Backbone, generator: torch.Generator) -> nn.Module:
        """See ``pipeline/stages/bitfit.py``."""
        from listflow.pipeline.stages import bitfit

        return bitfit.attach(view, depth, backbone, self, generator)


class NoStage(Section):
    """Nothing inside the backbone: the head alone is trained."""

    kind: Literal["none"] = "none"

    def lowest(self, count: int) -> int:
        """Above all layers."""
        return count

    @property
    def starts_as_identity(self) -> Literal["exact"]:
        return "exact"


AnyStage = Annotated[Unified | BitFit | PTuning | Intrinsic | NoStage, Field(discriminator="kind")]
KINDS: dict[str, type[AnyStage]] = {kind.model_fields["kind"].default: kind for kind in get_args(get_args(AnyStage)[0])}

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


def item_of(given: Any, number: int) -> int | None:
    """The place in the list ``given`` of what became stage ``number`` of ``expand``; None where it is no list."""
    if not isinstance(given, list | tuple):
        return None
    counts = itertools.accumulate(len(expand(part)) for part in given)
    return next(place for place, count in enumerate(counts) if number < count)


def _go_together(given: tuple[AnyStage, ...]) -> tuple[AnyStage, ...]:
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


def pseudo_tokens(given: Sequence[AnyStage]) -> PseudoTokens | None:
    """The stage whose pseudo tokens a prompt must hold."""
    return next((stage for stage in given if isinstance(stage, PseudoTokens)), None)


def lives_in_layers(kind: str) -> bool:
    """Whether a stage of this name takes ``layers``."""
    parts = STAGE_PRESETS.get(kind, ({},))
    return all(issubclass(KINDS[part.get("kind", "unified")], Layered) for part in parts)
