"""Pseudo tokens that start from the words of a task's own template: spelled out before the run is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from listflow.data.errors import InputError
from listflow.data.task import Task
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.pseudo_tokens import PTuning
from listflow.pipeline.stages.config import AnyStage


def spell_start(stages: Sequence[AnyStage], task: Task, tokenizer: Any, max_length: int) -> tuple[AnyStage, ...]:
    """``stages`` with every start template turned into start words, with the first tokens that the template has.

    So the configuration that is kept says what was done. InputError for a template without words.
    """
    wanted = any(isinstance(stage, PTuning) and stage.start == "template" for stage in stages)
    if not wanted:
        return tuple(stages)
    words = _words(task, tokenizer, max_length)
    return tuple(_spelled(stage, words) for stage in stages)


def _spelled(stage: AnyStage, words: list[str]) -> AnyStage:
    if not isinstance(stage, PTuning) or stage.start != "template":
        return stage
    return stage.model_copy(update={"start": "words", "words": tuple(words[: stage.tokens])})


def _words(task: Task, tokenizer: Any, max_length: int) -> list[str]:
    """Vocabulary entries, not a text: pieces that stand apart in the template may be other tokens side by side."""
    fixed = Prompt(task, tokenizer, max_length).fixed
    words: list[str] = tokenizer.convert_ids_to_tokens([token for ids in fixed.values() for token in ids])
    if not words:
        raise InputError(f"the template of task '{task.name}' has no words for stage.start template; set start=random.")
    return words
