"""Typed values that a person writes, and how a mistake in them is told in one sentence.

Values come from a configuration, whose sentences begin with the key as the user wrote it (``refusal``), or from a file
or an option of its own, such as a task, whose sentences begin with that source (``refusal_in``). Either tells the first
of pydantic's complaints.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from listflow.data.errors import InputError, did_you_mean, nearest, shortened

Loc = tuple[str | int, ...]
Model = type[BaseModel]
LONGEST = 60  # characters of a wrong value that a sentence repeats


class Section(BaseModel):
    """Values that belong together: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def refusal(error: ValidationError, model: Model, as_written: Callable[[Loc], Loc] = lambda loc: loc) -> InputError:
    """Return the error to raise for the first complaint about a configuration of type ``model``.

    as_written: undoes in its key what the user did not write.
    """
    first = _first(error)
    path, section, field = _follow(first["loc"], model)
    problem = _problem(first, section, field, cut=len(path) < len(first["loc"]))
    if first["type"].startswith("union_tag"):
        path = (*path, "kind")
    key = _dotted(as_written(path))
    return InputError(f"config key '{key}': {problem}" if key else problem)


def refusal_in(source: str, error: ValidationError, model: Model) -> InputError:
    """Return the error to raise for the first complaint about a ``model`` that was read from ``source``."""
    first = _first(error)
    key = _dotted(first["loc"])
    if first["type"] == "extra_forbidden":
        # Where a key is written with a dot, the section before the dot is meant.
        section = _follow((key.partition(".")[0],), model)[1] or model
        hint, known = did_you_mean(str(first["loc"][-1]), section.model_fields), ", ".join(section.model_fields)
        return InputError(f"{source}: unknown key {key!r}{hint}; use {known}.")
    if first["type"] == "missing":
        return InputError(f"{source}: the key {key!r} is missing; add it.")
    problem = _sentence(_message(first))
    return InputError(f"{source}: {key}: {problem}" if key else f"{source}: {problem}")


def _follow(loc: Loc, model: Model) -> tuple[Loc, Model | None, FieldInfo | None]:
    """(the keys and numbers of ``loc``, the innermost section that they lead to, the innermost field).

    What else pydantic puts there is left out: the kind that it chose in a union, the names of types and functions.
    """
    path: list[str | int] = []
    section: Model | None = model
    choices: dict[str, Model] = {}
    field = None
    for number, part in enumerate(loc):
        if isinstance(part, int):
            path.append(part)
        elif part in choices:
            section, choices = choices[part], {}
        elif section is not None and part in section.model_fields:
            path.append(part)
            field = section.model_fields[part]
            found = _sections(field.annotation)
            section = found[0] if len(found) == 1 else None
            choices = {str(each.model_fields["kind"].default): each for each in found} if len(found) > 1 else {}
        elif section is not None and number == len(loc) - 1:
            path.append(part)  # a key that is not there
    return tuple(path), section, field


def _sections(annotation: Any) -> list[Model]:
    """The models anywhere inside a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _sections(part)]


def _problem(first: Any, section: Model | None, field: FieldInfo | None, cut: bool) -> str:
    """What is wrong, the key left out. ``cut``: pydantic names more than the key, such as one of the types it tried."""
    kind, message, context = first["type"], _message(first), first.get("ctx", {})
    if kind == "extra_forbidden":
        wrong = str(first["loc"][-1])
        return _sentence(f"unknown key '{wrong}'; {nearest(wrong, list(section.model_fields) if section else [])}")
    if kind == "union_tag_invalid":
        return _sentence(f"unknown kind '{context['tag']}'; {nearest(context['tag'], _quoted(context))}")
    if kind == "union_tag_not_found":
        return "is missing; say which is meant."
    if kind == "value_error":
        return _sentence(message)
    if kind in {"model_type", "model_attributes_type"}:
        message = "must hold keys with values"
    elif section is None and cut and field is not None and field.description and _is_union(field):
        message = f"must be {field.description}"
    else:
        message = re.sub(r"^\w+ should ", "must ", message).replace(" after validation", "")
    return f"{message} (got {_short(first['input'])})."


def _is_union(field: FieldInfo) -> bool:
    """Whether pydantic complains once for every form that the value could have had."""
    return len([part for part in get_args(field.annotation) if part is not type(None)]) > 1


def _quoted(context: dict[str, Any]) -> list[str]:
    return re.findall(r"'([^']+)'", context["expected_tags"])


def _short(value: Any) -> str:
    return shortened(repr(value), LONGEST)


def _first(error: ValidationError) -> Any:
    return error.errors(include_url=False)[0]


def _dotted(loc: Loc) -> str:
    return ".".join(str(part) for part in loc)


def _message(first: Any) -> str:
    """Pydantic's words, or those of a validator of ours."""
    return str(first["msg"]).removeprefix("Value error, ")


def _sentence(text: str) -> str:
    return text if text.endswith(("?", ".")) else f"{text}."
