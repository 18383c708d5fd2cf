"""A task is data, never a class: its labels, their label words, a template and the columns to read.

Tasks are YAML files: those that come with the package lie in ``data/tasks/``, anybody else's are named by their path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from listflow.data.documents import parse_yaml, read_yaml
from listflow.data.errors import InputError, did_you_mean, shortened
from listflow.data.files import at_home
from listflow.data.schema import LONGEST, Section, refusal_in
from listflow.data.template import Part, parse_template
from listflow.data.values import normal

MOST_LABELS = 1000
OF_LABELS = ("labels",)  # under these keys labels and their words stand
FROM_ONE = 1e-3  # how far shares may sum from 1
# An item of --columns: in quotes as a whole, with quotes around the name, or plain. Quotes within are doubled.
_ITEM = re.compile(
    r'\s*(?:"(?P<whole>(?:[^"]|"")*)"|(?P<key>[^=,"]*)=\s*"(?P<name>(?:[^"]|"")*)"|(?P<plain>[^,]*))\s*(?:,|$)'
)


class Columns(Section):
    """What the columns of a file are called; each default is the plain name."""

    text: str = Field(default="text", min_length=1, description="Column with the text of a single-text task.")
    text_a: str = Field(default="text_a", min_length=1, description="Column with the first text of a pair.")
    text_b: str = Field(default="text_b", min_length=1, description="Column with the second text of a pair.")
    label: str = Field(default="label", min_length=1, description="Column with the label.")

    @field_validator("*")
    @classmethod
    def _normal_name(cls, name: str) -> str:
        return normal(name)

    @model_validator(mode="after")
    def _distinct_names(self) -> Self:
        if self.label in (self.text, self.text_a, self.text_b) or self.text_a == self.text_b:
            raise ValueError("one column has two uses: name a different column for each")
        return self


def _labels_as_mapping(value: Any) -> dict[str, str | None]:
    """Accept a plain list of labels, and whole numbers; what YAML reads as true or a date must be quoted."""
    if not isinstance(value, list | dict):
        raise ValueError("give a list of labels, or a mapping from each label to its label word")
    words = [word for word in value.values() if word is not None] if isinstance(value, dict) else []
    for item in (*value, *words):
        if isinstance(item, bool) or not isinstance(item, str | int):
            raise ValueError(f"{shortened(repr(item), LONGEST)} is not text to YAML: put quotes around it")
    pairs = value.items() if isinstance(value, dict) else ((label, None) for label in value)
    labels = {str(label).strip(): None if word is None else str(word).strip() for label, word in pairs}
    if len(labels) < len(value):
        raise ValueError("the labels repeat: give each label once")
    return _normal_keys(labels)


def _keyed_by_label(value: Any) -> Any:
    """Keys as the labels have them; a sentence may go over several lines."""
    if not isinstance(value, dict):
        raise ValueError("give a mapping that names labels")
    for label in value:
        if isinstance(label, bool) or not isinstance(label, str | int):
            raise ValueError(f"{label!r} is not text to YAML: put quotes around it")
    return _normal_keys(
        {str(label).strip(): " ".join(item.split()) if isinstance(item, str) else item for label, item in value.items()}
    )


def _normal_keys(named: dict[str, Any]) -> dict[str, Any]:
    """With labels as rows have them. Models of earlier versions may have two spellings of one, which stay apart."""
    alike = {normal(label): item for label, item in named.items()}
    return alike if len(alike) == len(named) else named


def _shares_as_mapping(value: Any) -> Any:
    return None if value is None else _keyed_by_label(value)


Sentence = Annotated[str, Field(min_length=1, max_length=300)]
Share = Annotated[float, Field(gt=0, le=1)]


class Task(Section):
    """Labels with their label words (None: the label's name), a template, and columns; what else is known of them."""

    name: str = Field(min_length=1, max_length=80, description="Name of the task, as reports show it.")
    description: str = Field(default="", max_length=2000, description="What the labels mean, in a sentence or two.")
    template: str = Field(description="Prompt with {text}, or {text_a} and {text_b}, and exactly one {mask}.")
    labels: Annotated[dict[str, str | None], BeforeValidator(_labels_as_mapping)] = Field(
        min_length=2,
        max_length=MOST_LABELS,
        description="Label to label word, in the order of the class indices.",
    )
    descriptions: Annotated[dict[str, Sentence], BeforeValidator(_keyed_by_label)] = Field(
        default={},
        max_length=MOST_LABELS,
        description="Label to a sentence that says what its texts are like, for any of the labels.",
    )
    shares: Annotated[dict[str, Share] | None, BeforeValidator(_shares_as_mapping)] = Field(
        default=None,
        max_length=MOST_LABELS,
        description="Label to its share of the unlabelled rows, for all labels; they sum to 1. None: not known.",
    )
    lower: bool = Field(default=False, description="Lower-case all texts before they meet the template.")
    columns: Columns = Field(default=Columns(), description="What the columns of the files are called.")

    @field_validator("template")
    @classmethod
    def _valid_template(cls, template: str) -> str:
        parse_template(template)
        return template

    @model_validator(mode="after")
    def _distinct_words(self) -> Self:
        words = [word for word in self.labels.values() if word is not None]
        if any(not text.strip() for text in (*self.labels, *words)):
            raise ValueError("labels and label words must not be blank")
        first: dict[str, str] = {}
        for label, word in self.labels.items():
            if word is not None and (other := first.setdefault(word, label)) != label:
                raise ValueError(f"labels {other!r} and {label!r} share a label word, {word!r}: give each its own")
        return self

    @model_validator(mode="after")
    def _names_labels(self) -> Self:
        for key, named in (("descriptions", self.descriptions), ("shares", self.shares or {})):
            for label in named:
                if label not in self.labels:
                    hint = did_you_mean(label, self.labels)
                    raise ValueError(f"{key}: {label!r} is no label{hint}; name labels of the task")
        return self

    @model_validator(mode="after")
    def _whole_shares(self) -> Self:
        if self.shares is None:
            return self
        absent = [label for label in self.labels if label not in self.shares]
        if absent:
            raise ValueError(f"shares: label {absent[0]!r} has none; give the share of every label")
        if abs((total := sum(self.shares.values())) - 1) > FROM_ONE:
            raise ValueError(f"shares: they sum to {total:.4g}; let them sum to 1")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_said(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A task without descriptions and shares is written as before there were any: runs are known by it."""
        fields: dict[str, Any] = dump(self)
        return {key: value for key, value in fields.items() if value or key not in {"descriptions", "shares"}}

    @property
    def is_pair(self) -> bool:
        """Whether a row holds two texts."""
        return any(part.kind == "pair" for part in self.template_parts())

    def template_parts(self) -> tuple[Part, ...]:
        """Return the template in pieces, left to right, neighbouring literals joined."""
        return parse_template(self.template)


def builtin_tasks() -> list[str]:
    """Return the names of the tasks that come with the package, sorted."""
    names = (item.name for item in _folder().iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def load_task(name_or_path: str) -> Task:
    """Return a built-in task by name, or the task in a YAML file.

    Raises InputError for an unknown name (with the built-ins and the nearest one) and for a bad file (with
    the file and the key).
    """
    if name_or_path in builtin_tasks():
        text = (_folder() / f"{name_or_path}.yaml").read_text("utf-8")
        return _task_of(name_or_path, parse_yaml(text, name_or_path, OF_LABELS))
    path = Path(at_home(name_or_path))
    if path.is_file():
        return _task_of(name_or_path, read_yaml(path, "pass a readable task file", OF_LABELS))
    hint, known = did_you_mean(path.stem, builtin_tasks()), ", ".join(builtin_tasks())
    what = "No task file" if path.suffix in (".yaml", ".yml") else "Unknown task"
    raise InputError(f"{what} {name_or_path!r}{hint}; pass a YAML file or a built-in task: {known}.")


def infer_task(labels: Sequence[str], is_pair: bool) -> Task:
    """Return a task for a labelled file alone: its labels, sorted, words left open, a general template.

    Raises InputError for fewer than 2 or more than 1000 distinct labels.
    """
    distinct = sorted(set(labels))
    if not 2 <= len(distinct) <= MOST_LABELS:
        found = f"The labelled rows hold {len(distinct)} different labels"
        raise InputError(f"{found}; a task has 2 to {MOST_LABELS}: check --columns label=NAME.")
    template = "{text_a} ? {mask}, {text_b}" if is_pair else "{text} This is about {mask}."
    return Task(name="custom", template=template, labels=dict.fromkeys(distinct))


def parse_columns(text: str) -> Columns:
    """Return the columns that `text=body,label=intent` renames. Raises InputError on any other shape.

    A name with a comma has double quotes around it, as in csv: `text="What, in your words?",label=intent`.
    """
    renames: dict[str, str] = {}
    for item, key, name in _renames(text):
        if not (key and name):
            quoted = ', and put double quotes around a name with a comma: text="a, b"' if "," in text else ""
            raise InputError(f"--columns {text!r}: {item!r} is not KEY=NAME; write for example text=body{quoted}.")
        if key not in Columns.model_fields:
            hint = did_you_mean(key, Columns.model_fields)
            known = ", ".join(Columns.model_fields)
            raise InputError(f"--columns {text!r}: unknown key {key!r}{hint}; use {known}.")
        if key in renames:
            raise InputError(f"--columns {text!r}: {key!r} is given twice; keep one.")
        renames[key] = name
    try:
        return Columns(**renames)
    except ValidationError as error:
        raise refusal_in(f"--columns {text!r}", error, Columns) from error


def _renames(text: str) -> Iterator[tuple[str, str, str]]:
    """(item, key, name) of each item between commas."""
    at, more = 0, True
    while more:
        match = _ITEM.match(text, at)
        assert match is not None
        at, more = match.end(), match[0].endswith(",")
        if match["name"] is not None:
            key, name = match["key"], match["name"].replace('""', '"')
        else:
            plain = match["plain"] if match["whole"] is None else match["whole"].replace('""', '"')
            key, _, name = plain.partition("=")
        yield match[0].removesuffix(",").strip(), key.strip(), name.strip()


def _folder() -> Traversable:
    return resources.files("listflow.data") / "tasks"


def _task_of(source: str, fields: Any) -> Task:
    if not isinstance(fields, dict):
        raise InputError(f"{source}: must hold the keys name, template and labels.")
    try:
        task = Task.model_validate(fields)
    except ValidationError as error:
        raise refusal_in(source, error, Task) from error
    if len({normal(label) for label in task.labels}) < len(task.labels):
        raise InputError(f"{source}: labels: two differ in their Unicode spelling only; give each label once.")
    return task
