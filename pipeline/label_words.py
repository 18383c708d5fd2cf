"""Label words: the one token that stands for each label, checked, or chosen where a task names none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from listflow.data.errors import InputError
from listflow.data.task import Task
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.prompt import token_ids
from listflow.pipeline.model.config import AnyHead


def word_ids_for(head: AnyHead, task: Task, backbone: Backbone) -> tuple[int, ...]:
    """As ``label_word_ids``; the unknown token for every label where ``head`` reads no words."""
    if not head.reads_words:
        return (backbone.tokenizer.unk_token_id,) * len(task.labels)
    return tuple(label_word_ids(task, backbone.tokenizer, backbone.word_rows))


def label_word_ids(task: Task, tokenizer: Any, word_rows: Tensor) -> list[int]:
    """The token id of each label's word, in label order.

    InputError for a label without a word, a word of several tokens, or two labels with one word; each with a
    suggestion that works with this tokenizer.
    """
    ids: dict[int, str] = {}
    for label, word in task.labels.items():
        pieces = token_ids(tokenizer, " " + (word or label))
        if len(pieces) != 1 or pieces[0] == tokenizer.unk_token_id:
            raise InputError(_word_problem(task, label, word, pieces, tokenizer, word_rows, set(ids)))
        if pieces[0] in ids:
            raise InputError(
                f"task '{task.name}': labels '{ids[pieces[0]]}' and '{label}' share the word '{word or label}'; "
                "give each its own."
            )
        ids[pieces[0]] = label
    return list(ids)


def fill_in_words(task: Task, tokenizer: Any, word_rows: Tensor) -> tuple[Task, tuple[str, ...]]:
    """(``task`` with a single-token word for every label that had none, a notice for each word that was chosen)."""
    words: dict[str, str | None] = {}
    notices = []
    for label, word in task.labels.items():
        taken = {token_ids(tokenizer, f" {w}")[0] for w in words.values()}
        words[label] = word or suggest_words(label, tokenizer, word_rows, taken)[0]
        if words[label] != (word or label.lower()):
            notices.append(f"label '{label}' is read as the word '{words[label]}'; a task file can name another.")
    return task.model_copy(update={"labels": words}), tuple(notices)


def _word_problem(
    task: Task, label: str, word: str | None, pieces: list[int], tokenizer: Any, rows: Tensor, taken: set[int]
) -> str:
    what = f"label word '{word}' of label '{label}'" if word else f"label '{label}' has no label word, and its name"
    shown = " ".join(tokenizer.convert_ids_to_tokens(pieces)) or "nothing"
    wrong = (
        "is unknown to the backbone" if len(pieces) == 1 else f"is {len(pieces)} tokens ({shown}) where one is needed"
    )
    words = suggest_words(word or label, tokenizer, rows, taken)
    return (
        f"task '{task.name}': {what} {wrong}; "
        f'set labels: {{"{label}": {words[0]}}} in the task file, or try {", ".join(words[1:])}.'
    )


def suggest_words(text: str, tokenizer: Any, rows: Tensor, taken: Iterable[int], count: int = 4) -> list[str]:
    """Single-token words for ``text``: its own words first, then the nearest by mean word embedding."""
    taken = {*taken, tokenizer.unk_token_id}
    own = [w for w in text.lower().replace("/", " ").replace("_", " ").replace("-", " ").split() if w.isalpha()]
    found = [w for w in own if len(w) > 2 and len(ids := token_ids(tokenizer, " " + w)) == 1 and ids[0] not in taken]
    pieces = token_ids(tokenizer, " " + " ".join(own or [text]))
    query = rows[pieces].float().mean(0)
    order = torch.nn.functional.cosine_similarity(rows.float(), query, dim=-1).argsort(descending=True)
    for token in order[:2000].tolist():
        word = tokenizer.decode([token]).strip().lower()
        fits = word.isalpha() and len(word) > 2 and token_ids(tokenizer, " " + word) == [token]
        if len(found) < count and fits and token not in taken and word not in found:
            found.append(word)
    return found
