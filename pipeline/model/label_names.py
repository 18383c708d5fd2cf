"""The names of labels as words: tidied, told from mere codes, and made into sentences.

A label is read by the word that its task file gives it, or else by its whole name: nothing of a name is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from listflow.data.task import Task
from listflow.pipeline.backbone.prompt import token_ids

SHOWN = 5
WAYS = ("{}", "This is about {}.", "This text is about {}.")  # to put a name to a sentence encoder
COUNTED = "label|class|cat|category|id|tag|cluster|topic|group|type"
ROMAN = "x{0,3}(?:ix|iv|v?i{0,3})"
# Of a tidied name: label 3, c12, x 7; class b, group ii; a+, iv. What holds no letter is no name either.
CODE = re.compile(rf"(?:{COUNTED}|[a-z])[ .:#]*\d+(?:[ .]\d+)*|(?:{COUNTED})[ .:#]+(?:[a-z]|{ROMAN})|[a-f][+-]|{ROMAN}")


def tidy(name: str) -> str:
    """``name`` as words in lower case: `Refund_not-shown` and `RefundNotShown` are `refund not shown`.

    `_`, `-` and `/` are spaces, but for a `-` or `/` at either end, which means something in `-1` or `A-`. A name
    without anything else stays as it is.
    """
    apart = "".join(f"{a} " if a.islower() and b.isupper() else a for a, b in pairwise(f"{name}."))
    words = re.sub(r"_|(?<=.)[-/](?=.)", " ", apart).lower().split()
    return " ".join(words) or name.strip().lower()


def fill_in_words(task: Task) -> Task:
    """``task`` with its tidied name as the word of every label that had none."""
    words = {label: word or tidy(label) for label, word in task.labels.items()}
    return task.model_copy(update={"labels": words})


def label_words(task: Task, tokenizer: Any) -> tuple[str, ...]:
    """The word of each label, in label order: the task's, else the name: as it is where that is a token, or tidied."""
    return tuple(
        word or (label if _is_a_token(label, tokenizer) else tidy(label)) for label, word in task.labels.items()
    )


def known_pieces(word: str, tokenizer: Any) -> tuple[int, ...]:
    """The token ids of ``word`` within a text, without those that are unknown or empty; () where none is known."""
    ids = token_ids(tokenizer, f" {word}")
    if tokenizer.unk_token_id not in ids:
        return tuple(ids)
    return tuple(i for i in ids if i != tokenizer.unk_token_id and str(tokenizer.decode([i])).strip())


def says_something(name: str, tokenizer: Any) -> bool:
    """Whether ``name`` is made of words: no number, single letter or code (`A`, `c12`, `LABEL_3`), and not unknown."""
    words = tidy(name)
    is_letter = len(words) == 1 and words != words.upper()
    if is_letter or CODE.fullmatch(words) or not any(character.isalpha() for character in words):
        return False
    return bool(known_pieces(words, tokenizer))


def label_sentences(task: Task, tokenizer: Any) -> tuple[tuple[str, ...], ...]:
    """For each label, in label order, as many sentences as WAYS: its description, or its word, put in each way.

    () for a label without either that says something; a description of unknown tokens alone says nothing.
    """
    found: list[tuple[str, ...]] = []
    for label, word in task.labels.items():
        name = word or tidy(label)
        said = tuple(way.format(name) for way in WAYS) if says_something(name, tokenizer) else ()
        described = task.descriptions.get(label, "")
        found.append((described,) * len(WAYS) if known_pieces(described, tokenizer) else said)
    return tuple(found)


def silent_notice(task: Task, tokenizer: Any) -> str | None:
    """One sentence on the labels that have no sentence; None where all have one."""
    sentences = label_sentences(task, tokenizer)
    silent = [label for label, said in zip(task.labels, sentences, strict=True) if not said]
    if not silent:
        return None
    names, them = ("the name of 1 label", "it") if len(silent) == 1 else (f"the names of {len(silent)} labels", "them")
    says = "says nothing and is" if len(silent) == 1 else "say nothing and are"
    return f"{names} ({_listed(silent)}) {says} not read; a task file can describe {them} under descriptions."


def _listed(labels: Sequence[str]) -> str:
    rest = len(labels) - SHOWN
    return ", ".join(labels[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _is_a_token(name: str, tokenizer: Any) -> bool:
    return len(token_ids(tokenizer, f" {name}")) == 1 == len(known_pieces(name, tokenizer))
