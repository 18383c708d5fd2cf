"""Which trained parts a plain masked LM can hold, and why it cannot hold the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from listflow.data.errors import InputError
from listflow.pipeline.model.config import AnyHead
from listflow.pipeline.stages.config import AnyStage, Unified

CLOSES_A_BLOCK = {"attention_output", "ffn_output"}


def check_mergeable(stages: Sequence[AnyStage], head: AnyHead, run: str) -> None:
    """Returns when all of ``stages`` and ``head`` merge; else an InputError that names what stands in the way."""
    problems = [*_of_stages(stages), *_of_head(head)]
    if problems:
        raise InputError(
            f"{run} has no form as a plain masked language model: {'; '.join(problems)}. "
            "Use the run as it is with `listflow predict`."
        )


def _of_stages(stages: Sequence[AnyStage]) -> Iterator[str]:
    for stage in stages:
        if isinstance(stage, Unified):
            yield from _of_unified(stage)
        elif stage.kind == "ptuning":
            yield f"the {stage.tokens} pseudo tokens of stage ptuning are no words of the vocabulary"
        elif stage.kind not in {"bitfit", "none"}:
            yield f"stage {stage.kind} is no part of the weights"


def _of_unified(stage: Unified) -> Iterator[str]:
    if stage.form == "softmax":
        yield "a prefix (form softmax) adds keys and values that no weight holds"
    elif "attention_heads" in stage.place:
        yield "a change at place attention_heads reads queries and adds to what the heads found"
    elif stage.form != "linear":
        yield f"a {stage.form} bottleneck at {' and '.join(stage.place)} is no linear map"
    elif "embeddings" in stage.place:
        yield "a change at place embeddings follows a LayerNorm, which no linear map does there"
    elif stage.insertion == "parallel" and CLOSES_A_BLOCK & set(stage.place):
        places = " and ".join(place for place in stage.place if place in CLOSES_A_BLOCK)
        yield f"a parallel change at {places} reads the input of the whole sub-layer, not of a linear map"


def _of_head(head: AnyHead) -> Iterator[str]:
    if head.kind != "verbalizer":
        yield f"head {head.kind} scores classes, not words at the mask (head verbalizer does)"
