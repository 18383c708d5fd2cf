"""Where the pseudo tokens of a stage stand among the words of a template.

``PseudoTokens`` is all that a prompt knows of such a stage; which ones there are is in ``stages/config.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from pydantic import Field

from listflow.data.errors import InputError
from listflow.data.schema import Section
from listflow.data.task import Task
from listflow.data.template import Part

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
        """The backbone reads another text with pseudo tokens in it."""
        return "no"


def placed(task: Task, pseudo: PseudoTokens | None, length: Callable[[str], int]) -> list[Part]:
    """The template's parts, tidied, with soft parts of ``pseudo.tokens`` in all; none where ``pseudo`` is None.

    ``length`` counts the tokens of a text. InputError for marks or words of the template that the stage asks for, where
    there are none or their number is another.
    """
    parts = task.template_parts()
    marked = sum(part.count for part in parts)
    if pseudo is not None and (pseudo.place == "marks" or (pseudo.place == "auto" and marked)):
        _check(task, pseudo.tokens, marked)
        return _tidy(parts)
    tidy = _tidy(_without_marks(parts))
    if pseudo is None:
        return tidy
    return _instead(task, tidy, pseudo, length) if pseudo.place == "template" else _with_soft(tidy, pseudo)


def layout(parts: Iterable[Part]) -> str:
    """Where texts, pseudo tokens and the mask stand, without the words between: ``text soft:4 mask``."""
    names = (f"soft:{part.count}" if part.kind == "soft" else part.kind for part in parts if part.kind != "literal")
    return " ".join(names)


def _check(task: Task, tokens: int, marked: int) -> None:
    if not marked:
        raise InputError(
            f"the template of task '{task.name}' has no {{soft:N}} for stage.place marks; mark where the {tokens} "
            "pseudo tokens stand, or set stage.place=auto."
        )
    if marked != tokens:
        raise InputError(
            f"the template of task '{task.name}' marks {marked} pseudo tokens and stage.tokens is {tokens}; "
            f"set stage.tokens={marked}."
        )


def _instead(task: Task, parts: list[Part], pseudo: PseudoTokens, length: Callable[[str], int]) -> list[Part]:
    """A pseudo token for each token of the literals."""
    words = sum(length(part.value) for part in parts if part.kind == "literal")
    if not words:
        raise InputError(
            f"the template of task '{task.name}' has no words for stage.place template; set another place."
        )
    if words != pseudo.tokens:
        raise InputError(
            f"the words of the template of task '{task.name}' are {words} tokens and stage.tokens is {pseudo.tokens}; "
            f"set stage.tokens={words}."
        )
    return [Part("soft", count=length(part.value)) if part.kind == "literal" else part for part in parts]


def _with_soft(parts: list[Part], pseudo: PseudoTokens) -> list[Part]:
    """``before_clause`` is where the literals begin that end at the mask: they stay whole, next to it."""
    kinds = [part.kind for part in parts]
    mask, first = kinds.index("mask"), kinds.index("text")
    if pseudo.place == "before_text":
        return [*parts[:first], Part("soft", count=pseudo.tokens), *parts[first:]]
    if pseudo.place == "around_mask":
        after = pseudo.tokens // 2
        around = [Part("soft", count=pseudo.tokens - after), parts[mask], Part("soft", count=after)]
        return [*parts[:mask], *around, *parts[mask + 1 :]]
    while mask and kinds[mask - 1] == "literal":
        mask -= 1
    return [*parts[:mask], Part("soft", count=pseudo.tokens), *parts[mask:]]


def _without_marks(parts: Iterable[Part]) -> list[Part]:
    """The parts with one space where a mark stood between two."""
    found: list[Part] = []
    for part in parts:
        if part.kind == "soft":
            continue
        if part.kind == "literal" and found and found[-1].kind == "literal":
            left = found.pop().value
            part = Part("literal", left + (part.value.lstrip(" ") if left.endswith(" ") else part.value))
        found.append(part)
    return found


def _tidy(parts: Sequence[Part]) -> list[Part]:
    """The space before a text belongs to that text's tokens, and is the value of its part."""
    found: list[Part] = []
    space = ""
    for position, part in enumerate(parts):
        if part.kind == "literal":
            value = part.value if position else part.value.lstrip()
            space = " " if value.endswith(" ") else ""
            if value.rstrip():
                found.append(Part("literal", value.rstrip()))
        else:
            found.append(Part(part.kind, space if part.kind in {"text", "pair"} else "", part.modifier, part.count))
            space = ""
    return found
