"""What a stage of pseudo tokens can be: vectors of its own in the place of words of the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from listflow.data.schema import Section

if TYPE_CHECKING:
    import torch
    from torch import nn

    from listflow.pipeline.backbone.backbone import Backbone

Place = Literal["auto", "marks", "before_text", "before_clause", "around_mask", "template"]


class PseudoTokens(Section):
    """A stage that feeds vectors of its own to the backbone, in the place of words of the prompt."""

    tokens: int = Field(8, ge=1, le=256, description="how many")
    place: Place = Field(
        "auto",
        description="marks: where the template has {soft:N}; before_clause: before the words that lead to the mask; "
        "around_mask: half on either side; template: in place of its words; auto: marks, or without any before_clause",
    )

    def lowest(self, count: int) -> int:
        """0: the input embeddings lie below all layers."""
        return 0

    @property
    def starts_as_identity(self) -> Literal["no"]:
        return "no"


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

    def attach(self, view: nn.Module, depth: int, backbone: Backbone, generator: torch.Generator) -> nn.Module:
        """See ``pipeline/stages/ptuning.py``."""
        from listflow.pipeline.stages import ptuning

        return ptuning.attach(view, depth, backbone, self, generator)


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

    def attach(self, view: nn.Module, depth: int, backbone: Backbone, generator: torch.Generator) -> nn.Module:
        """See ``pipeline/stages/ipt.py``."""
        from listflow.pipeline.stages import ipt

        return ipt.attach(view, depth, backbone, self, generator)
