"""What a stage of pseudo tokens can be: vectors of its own in the place of words of the prompt."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.section import Section

Place = Literal["auto", "marks", "before_text", "before_clause", "around_mask"]


class PseudoTokens(Section):
    """A stage that feeds vectors of its own to the backbone, in the place of words of the prompt."""

    tokens: int = Field(8, ge=1, le=256, description="how many")
    place: Place = Field(
        "auto",
        description="marks: where the template has {soft:N}; before_clause: before the words that lead to the mask; "
        "around_mask: half on either side; auto: at the marks, or without any before_clause",
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
    start: Literal["random", "words"] = Field("random", description="what the trained embeddings start from")
    words: str = Field("", max_length=2000, description="these words, for start words; repeated where too few")

    @model_validator(mode="after")
    def _makes_sense(self) -> PTuning:
        if (self.start == "words") != bool(self.words.strip()):
            raise ValueError("start words and words belong together: give both or neither")
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
