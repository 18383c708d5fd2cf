"""What every part of the configuration is built on."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from listflow.data.errors import InputError, nearest, shortened

Loc = tuple[str | int, ...]
Model = type[BaseModel]
LONGEST = 60


def refusal(error: ValidationError, model: Model, as_written: Callable[[Loc], Loc] = lambda loc: loc) -> InputError:
    """The error to raise for the first complaint about ``model``; ``as_written`` undoes what the user did not write."""
    first = error.errors(include_url=False)[0]
    path, section, field = _follow(first["loc"], model)
    problem = _problem(first, section, field, cut=len(path) < len(first["loc"]))
    if first["type"].startswith("union_tag"):
        path = (*path, "kind")
    key = ".".join(str(part) for part in as_written(path))
    return InputError(f"config key '{key}': {problem}" if key else problem)


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
    kind, message, context = first["type"], first["msg"].removeprefix("Value error, "), first.get("ctx", {})
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


def _sentence(text: str) -> str:
    return text if text.endswith(("?", ".")) else f"{text}."


def _short(value: Any) -> str:
    return shortened(repr(value), LONGEST)


class Section(BaseModel):
    """A part of the configuration: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
