"""What a stage can be: typed values, and the reasons why some of them make no sense together.

What attaches a stage is imported when a model is built (``attach.py``): whoever reads configurations should not wait
for torch. The names that the literature has for some of these values are in ``presets.py``.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from listflow.data.schema import Section
from listflow.pipeline.backbone.placement import PseudoTokens
from listflow.pipeline.stages.base import Layered

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


class BitFit(Layered):
    """All bias vectors of the layers, LayerNorm's too (arXiv 2106.10199)."""

    kind: Literal["bitfit"] = "bitfit"

    @property
    def starts_as_identity(self) -> Literal["exact"]:
        """Its biases start as the backbone's own."""
        return "exact"


class PTuning(PseudoTokens):
    """Pseudo tokens, trained through a small encoder or as they are (arXiv 2103.10385)."""

    kind: Literal["ptuning"] = "ptuning"
    encoder: Literal["lstm", "mlp", "none"] = Field("lstm", description="what makes them; none: a plain soft prompt")
    hidden: int = Field(
        0, ge=0, le=4096, description="of the encoder, per direction of an lstm; 0: half of an embedding, all for mlp"
    )
    depth: int = Field(2, ge=2, le=3, description="linear maps of an mlp; peft's default has 3")
    start: Literal["random", "words", "template", "prompt"] = Field(
        "random",
        description="what the trained embeddings start from; template: the words of the task's template; prompt: that "
        "of another run",
    )
    words: Annotated[str, Field(max_length=2000)] | tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        "", description="for start words: a text, or a list of vocabulary entries; repeated where too few"
    )
    prompt: str = Field("", description="folder of that run, for start prompt")
    digest: str = Field("", description="sha256 of its weights; filled in when a run is opened, another is refused")
    aux_weight: float = Field(
        0.0, ge=0, le=100, description="of a masked-LM loss on the texts beside the labels; 0: none"
    )
    aux_probability: float = Field(0.15, ge=0, le=0.5, description="with which that loss hides a word of a text")

    @model_validator(mode="after")
    def _makes_sense(self) -> PTuning:
        if (self.start == "words") != bool(self.words.strip() if isinstance(self.words, str) else self.words):
            raise ValueError("start words and words belong together: give both or neither")
        if (self.start == "prompt") != bool(self.prompt):
            raise ValueError("start prompt and prompt belong together: give both or neither")
        if self.start == "prompt" and self.encoder != "none":
            raise ValueError("start prompt needs encoder none: the vectors of another run are tuned as they are")
        if self.depth != 2 and self.encoder != "mlp":
            raise ValueError("depth belongs to encoder mlp")
        if self.aux_weight and not self.aux_probability:
            raise ValueError("aux_weight weighs nothing with aux_probability 0, which hides no word")
        if self.encoder == "none" and self.hidden:
            raise ValueError("hidden belongs to an encoder; encoder none has none")
        return self


class Intrinsic(PseudoTokens):
    """Pseudo tokens that move within a subspace found on other tasks (arXiv 2110.07867)."""

    kind: Literal["ipt"] = "ipt"
    subspace: str = Field("", description="folder that `listflow subspace` made")
    decoder: str = Field("", description="sha256 of its decoder; filled in when a run is opened, another is refused")
    start: Literal["mean", "random"] = Field("mean", description="coordinates: the mean of known prompts, or at random")

    @model_validator(mode="after")
    def _makes_sense(self) -> Intrinsic:
        if not self.subspace:
            raise ValueError("stage ipt needs stage.subspace=FOLDER; make one with `listflow subspace`")
        return self


class NoStage(Section):
    """Nothing inside the backbone: the head alone is trained."""

    kind: Literal["none"] = "none"

    def lowest(self, count: int) -> int:
        """Above all layers."""
        return count

    @property
    def starts_as_identity(self) -> Literal["exact"]:
        """Nothing is changed."""
        return "exact"


AnyStage = Annotated[Unified | BitFit | PTuning | Intrinsic | NoStage, Field(discriminator="kind")]
KINDS: dict[str, type[AnyStage]] = {kind.model_fields["kind"].default: kind for kind in get_args(get_args(AnyStage)[0])}
