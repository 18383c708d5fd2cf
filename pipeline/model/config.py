"""What a head can be. ``reads_words``: whether it starts from the label words."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from listflow.data.schema import Section


class VerbalizerHead(Section):
    """Masked-LM logits of the label words at the mask."""

    reads_words: ClassVar[bool] = True

    kind: Literal["verbalizer"] = "verbalizer"
    trained: bool = Field(True, description="off: it stays the backbone's own, and the stage alone moves")
    centre: bool = Field(False, description="start with equal mean logits per class on unlabelled text")

    @model_validator(mode="after")
    def _stays_as_it_is(self) -> VerbalizerHead:
        if self.centre and not self.trained:
            raise ValueError("centre moves the bias of the head, which trained=false leaves alone; choose one of them")
        return self


class LinearHead(Section):
    """One linear map of pooled features: the classic baseline."""

    reads_words: ClassVar[bool] = False

    kind: Literal["linear"] = "linear"
    pool: Literal["mean", "first", "mask"] = Field("mean", description="mean of the tokens, the first one, or the mask")


class YTuningHead(Section):
    """Label vectors matched to fixed text features by a small decoder (arXiv 2202.09817)."""

    kind: Literal["ytuning"] = "ytuning"
    vectors: int = Field(1, ge=1, le=64, description="vectors K of every label")
    width: int = Field(0, ge=0, le=4096, description="size of label vectors and decoder; 0: that of the features")
    blocks: int = Field(1, ge=1, le=12, description="decoder blocks")
    heads: int = Field(4, ge=1, le=64, description="attention heads of the decoder")
    start: Literal["words", "normal", "uniform"] = Field("words", description="what label vectors start from")
    pool: Literal["mean", "max"] = Field("mean", description="how a label's vectors become one")
    score: Literal["dot", "scaled_dot", "cosine", "distance"] = Field("cosine", description="task against label")
    margin: float = Field(0.5, gt=0, le=100, description="alpha of the triplet loss")
    temperature: float = Field(0.1, gt=0, le=100, description="logits are scores over this")
    loss: Literal["triplet", "cross_entropy"] = Field("triplet", description="on labelled rows")
    balanced: bool = Field(True, description="the classes of a labelled batch count the same, whatever rows each has")

    @property
    def reads_words(self) -> bool:
        """Whether label vectors start from the label words."""
        return self.start == "words"

    @model_validator(mode="after")
    def _heads_divide(self) -> YTuningHead:
        if self.width and self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be divided among {self.heads} heads")
        return self


class PrototypesHead(Section):
    """Label vectors on fixed features; on the text face they start from label names, labelled rows and the pool."""

    reads_words: ClassVar[bool] = False

    kind: Literal["prototypes"] = "prototypes"
    scale: float = Field(
        10.0, gt=0, le=1000, description="logits are products of unit features with the vectors, times this"
    )
    width: int = Field(0, ge=0, le=100_000, description="size of the features; 0: that of the face, filled in")
    normalised: bool = Field(True, description="features are brought to unit length; off for pairs, filled in")
    middle: float = Field(
        0.0,
        ge=0,
        le=10,
        description="of single texts, how long what the encoder's middle layer says is, beside 1 for the sentence "
        "embedding; 0: left out",
    )

    @property
    def reads_middle(self) -> bool:
        """Whether its features have two parts, the sentence embedding and the mean of the middle layer's tokens."""
        return self.middle > 0 and self.normalised


AnyHead = Annotated[VerbalizerHead | LinearHead | YTuningHead | PrototypesHead, Field(discriminator="kind")]


def reads_middle(head: AnyHead) -> bool:
    """Whether ``head`` asks the text face for the middle layer of the encoder, too."""
    return isinstance(head, PrototypesHead) and head.reads_middle
