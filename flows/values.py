"""Configuration values as a user writes them: YAML files, and ``a.b=value`` on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from listflow.data.errors import InputError

Values = dict[str, Any]


def read_yaml(path: Path) -> Values:
    """The nested values of a YAML file; InputError when there are none to read."""
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); pass a YAML file to --config.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not valid YAML ({' '.join(str(error).split())}); correct it.") from error
    if values is not None and not isinstance(values, dict):
        raise InputError(f"{path}: must hold keys with values, such as 'rounds: {{count: 3}}'.")
    return values or {}


def parse_set(item: str) -> Values:
    """The nested dict that ``a.b=value`` means, the value read as YAML; InputError for another shape."""
    key, equals, text = item.partition("=")
    if not (key and equals):
        raise InputError(f"--set {item!r} is not KEY=VALUE; write for example student.steps=300.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {item!r}: the value is not valid YAML; put quotes around it.") from error
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def given_values(options: Values, items: Iterable[str]) -> Values:
    """What a user gave: ``options`` that are not None, and ``--set`` items over them."""
    given = {name: value for name, value in options.items() if value is not None}
    for item in items:
        given |= parse_set(item)
    return given
