"""The grammar of a prompt template: literal text, the texts of a row, the mask, pseudo tokens."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from listflow.data.errors import InputError, did_you_mean

Kind = Literal["literal", "text", "pair", "mask", "soft"]
MOST_SOFT = 256  # pseudo tokens of one field
MODIFIERS: dict[str, Callable[[str], str]] = {
    "drop_last": lambda text: text[:-1],
    "lower_first": lambda text: text[:1].lower() + text[1:],
}
FIELDS: dict[str, Kind] = {"text": "text", "text_a": "text", "text_b": "pair", "mask": "mask", "soft": "soft"}


@dataclass(frozen=True)
class Part:
    """One piece of a template: literal text, the (first) text, the second text of a pair, the mask, or soft tokens."""

    kind: Kind
    value: str = ""
    modifier: str | None = None
    count: int = 0


def parse_template(template: str) -> tuple[Part, ...]:
    """Return the parts of a template, left to right.

    `{text}` or `{text_a}` and `{text_b}` stand for the texts, each with an optional modifier
    (`{text_a:drop_last}`, `{text_b:lower_first}`), `{mask}` for the mask, `{soft:3}` for three pseudo tokens of
    a stage that has some (nothing for other stages), `{{` and `}}` for braces.
    Raises InputError that says what is wrong.
    """
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InputError(f"Template {template!r}: {error}; write a literal brace twice.") from error
    _check_fields(template, [name for _, name, _, _ in pieces if name is not None])
    parts: list[Part] = []
    for literal, name, modifier, conversion in pieces:
        if literal and parts and parts[-1].kind == "literal":
            parts[-1] = Part("literal", parts[-1].value + literal)
        elif literal:
            parts.append(Part("literal", literal))
        if name is not None:
            parts.append(_field(template, name, modifier, conversion))
    return tuple(parts)


def _check_fields(template: str, names: Sequence[str]) -> None:
    for name in names:
        if name not in FIELDS:
            hint, known = did_you_mean(name, FIELDS), ", ".join(FIELDS)
            raise InputError(f"Template {template!r}: unknown field {{{name}}}{hint}; use {known}.")
    masks = names.count("mask")
    if masks != 1:
        raise InputError(f"Template {template!r}: has {masks} {{mask}} fields; it needs exactly one.")
    if sorted(name for name in names if name not in {"mask", "soft"}) not in (["text"], ["text_a", "text_b"]):
        raise InputError(f"Template {template!r}: needs one {{text}}, or one {{text_a}} and one {{text_b}}.")


def _field(template: str, name: str, modifier: str | None, conversion: str | None) -> Part:
    if name == "soft":
        return _soft(template, modifier, conversion)
    if conversion or (modifier and (modifier not in MODIFIERS or name == "mask")):
        wrong = f"!{conversion}" if conversion else f":{modifier}"
        known = ", ".join(MODIFIERS)
        raise InputError(f"Template {template!r}: {{{name}{wrong}}} is no modifier; texts can take {known}.")
    return Part(FIELDS[name], modifier=modifier or None)


def _soft(template: str, modifier: str | None, conversion: str | None) -> Part:
    count = modifier or "1"
    if conversion or count not in map(str, range(1, MOST_SOFT + 1)):
        wrong = f"!{conversion}" if conversion else f":{modifier}"
        raise InputError(f"Template {template!r}: {{soft{wrong}}} is no number of tokens; write 1 to {MOST_SOFT}.")
    return Part("soft", count=int(count))
