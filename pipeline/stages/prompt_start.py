"""What pseudo tokens start from: the words of a task's own template, or the prompt of another run.

The words are spelled out before the run is recorded. Another run's prompt is stage two of intrinsic prompt tuning, or
any transfer: a finished run keeps it as plain vectors (``flat`` in ``model/classifier.py``), also where it was Dec(z).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from listflow.data.errors import InputError
from listflow.data.task import Task
from listflow.pipeline.backbone.backbone import Backbone, Identity
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.stages.config import AnyStage, PTuning
from listflow.pipeline.storage.checkpoint import load_tensors, read_json, verified
from listflow.pipeline.storage.run_folder import CARD, WEIGHTS, RunFolder


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


def pinned_start(stage: PTuning) -> PTuning:
    """``stage`` with an absolute path to the run it starts from, and the digest of that run's final weights.

    InputError when that run is not finished, or is no longer the one that ``stage`` was pinned to.
    """
    if stage.start != "prompt":
        return stage
    folder = Path(stage.prompt).expanduser().resolve()
    digest = _digest(folder)
    if stage.digest not in {"", digest}:
        raise InputError(
            f"stage.prompt {folder} holds another model than the one this run was started with; restore that folder, "
            "or start a new run."
        )
    return stage.model_copy(update={"prompt": str(folder), "digest": digest})


def _digest(folder: Path) -> str:
    """sha256 of the final weights of the run in ``folder``; InputError where it is not finished."""
    manifest = verified(RunFolder(folder).final)
    if manifest is None:
        raise InputError(f"stage.prompt {folder} holds no finished model; finish that run with `listflow resume`.")
    return str(manifest["files"][WEIGHTS])


def check_start(stages: Sequence[AnyStage], backbone: Backbone) -> None:
    """InputError for a prompt that was trained on another backbone."""
    for stage in stages:
        if isinstance(stage, PTuning) and stage.start == "prompt":
            trained_on = read_json(RunFolder(Path(stage.prompt)).final / CARD)["backbone"]
            if not backbone.identity().is_of(Identity.of(trained_on)):
                raise InputError(
                    f"stage.prompt {stage.prompt} was trained on backbone '{trained_on['name']}', and this run's "
                    f"'{backbone.name}' is another; name a run on the same backbone."
                )


def start_from(stage: PTuning) -> Tensor:
    """(n, E) fp32: the trained prompt of the run that a pinned ``stage`` names; InputError where it does not fit."""
    tensors = load_tensors(RunFolder(Path(stage.prompt)).final / WEIGHTS)
    found = [value for name, value in tensors.items() if name.startswith("stage.") and name.endswith(".embedding")]
    if len(found) != 1:
        raise InputError(f"stage.prompt {stage.prompt} has no prompt of its own; name a run with pseudo tokens.")
    tokens = len(found[0])
    if tokens != stage.tokens:
        raise InputError(
            f"stage.prompt {stage.prompt} has {tokens} pseudo tokens and stage.tokens is {stage.tokens}; "
            f"set stage.tokens={tokens}."
        )
    return found[0].float().clone()
