"""YAML that a person writes, read as it is written: where YAML would take it for something else, the person is asked.

Text is what looks like text: ``yes``, ``on`` and a date are words here. A number is read where it is written as numbers
are, such as 8 or 0.5; of 010, 1_000 and 12:30, which YAML has as 8, 1000 and 750, quotes are asked for. No key may be
there twice, and neither nesting nor aliases make much of a short file.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError

from listflow.data.errors import InputError, shortened

MOST_BYTES = 10_000_000
DEEPEST = 100  # lists and mappings within each other
MOST_BY_ALIASES = 10_000  # values that are there by aliases alone
LONGEST = 40  # characters of a value that a sentence repeats
LONGEST_NUMBER = 4300  # digits, as Python reads them
_TAG = "tag:yaml.org,2002:"
_NULL = f"{_TAG}null"
_NO_TEXT = {_NULL, f"{_TAG}bool", f"{_TAG}float"}
_NOT_READ = {f"{_TAG}{kind}" for kind in ("bool", "timestamp", "value")}  # as YAML 1.1 finds them in plain words
_PLAIN = re.compile("0|-?[1-9][0-9]*")
_NUMBERS = yaml.SafeLoader("")  # says what YAML makes of a number


def read_yaml(path: Path, remedy: str, texts: Collection[str] = ()) -> Any:
    """As ``parse_yaml``, of a file in UTF-8. InputError for one that cannot be read, with the ``remedy``."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}.") from error
    if len(content) > MOST_BYTES:
        raise InputError(f"{path}: is longer than {MOST_BYTES:,} bytes; {remedy}.")
    try:
        return parse_yaml(content.decode("utf-8-sig"), str(path), texts)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text; save it as UTF-8.") from error


def parse_yaml(text: str, source: str, texts: Collection[str] = (), has_lines: bool = True) -> Any:
    """The values in ``text``: mappings, lists, text, numbers, true, false and None; None where there is nothing.

    texts: keys at the top under which labels and words stand, which must be text or whole numbers. ``source`` begins
    the sentence of the InputError for what cannot be read or could be meant otherwise; its line follows, where it
    ``has_lines``.
    """
    try:
        return _Reader(text).read(texts)
    except _Refused as refused:
        raise InputError(f"{source}{refused.where if has_lines else ''}: {refused.words}.") from refused
    except yaml.YAMLError as error:
        raise InputError(
            f"{source}{_where(text, error) if has_lines else ''}: is not valid YAML ({_problem(error)}); correct it."
        ) from error


class _Refused(Exception):
    """Something that YAML can read and this must not; ``words`` say what, and what to do."""

    def __init__(self, words: str, *nodes: Node) -> None:
        super().__init__(words)
        lines = [node.start_mark.line + 1 for node in nodes]
        self.words = words
        self.where = f", line{'s' if len(lines) > 1 else ''} {' and '.join(map(str, lines))}" if lines else ""


class _Reader(yaml.SafeLoader):
    """PyYAML's safe loader, whose nodes are looked at before anything is made of them."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def read(self, texts: Collection[str]) -> Any:
        root = self.get_single_node()
        if root is None:
            return None
        _measure(root)
        _check(root)
        _check_texts(root, texts)
        return self.construct_document(root)

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self._depth += 1
        if self._depth > DEEPEST:
            where = Node("", None, self.peek_event().start_mark, None)
            raise _Refused(f"has more than {DEEPEST} lists or mappings within each other; write it flatter", where)
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, TypeError) as error:  # under a tag that was written out
            raise _unfit(node) from error


_Reader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag not in _NOT_READ]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Reader.add_implicit_resolver(f"{_TAG}bool", re.compile("true|True|TRUE|false|False|FALSE"), list("tTfF"))


def _measure(root: Node) -> None:
    """Returns where aliases make little of the nodes, and not one that lies within itself."""
    sizes: dict[int, tuple[int, int]] = {}

    def measure(node: Node) -> tuple[int, int]:
        """(values, lists and mappings within each other), those of aliases counted again."""
        if (known := sizes.get(id(node))) is not None:
            if not known[0]:
                raise _Refused("holds an alias of something that it is part of; write it out", node)
            return known
        sizes[id(node)] = 0, 0
        below = [measure(child) for child in _children(node)]
        sizes[id(node)] = 1 + sum(size for size, _ in below), 1 + max((depth for _, depth in below), default=0)
        return sizes[id(node)]

    values, depth = measure(root)
    if values - len(sizes) > MOST_BY_ALIASES or depth > DEEPEST:
        raise _Refused(f"its aliases make {values:,} values of {len(sizes):,}; write out what is meant")


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _check(node: Node) -> None:
    """Returns where every number below is written as numbers are, and every key is text and there once."""
    if isinstance(node, ScalarNode):
        _check_number(node)
    elif isinstance(node, MappingNode):
        before: dict[str, Node] = {}
        for key, _ in node.value:
            if not isinstance(key, ScalarNode) or key.tag == f"{_TAG}merge":
                continue
            _check_number(key)
            _check_text(key)
            if (first := before.setdefault(key.value, key)) is not key:
                raise _Refused(f"the key {_short(key)} is there twice; keep one of them", first, key)
    for child in _children(node):
        _check(child)


def _check_number(node: ScalarNode) -> None:
    written, kind = str(node.value), node.tag.removeprefix(_TAG)
    if kind == "int" and len(written) > LONGEST_NUMBER:
        raise _Refused(f"{_short(node)} is a number of more than {LONGEST_NUMBER:,} digits; put quotes around it", node)
    if (kind == "int" and not _PLAIN.fullmatch(written)) or (kind == "float" and {"_", ":"} & set(written)):
        try:
            number = _NUMBERS.construct_yaml_int(node) if kind == "int" else _NUMBERS.construct_yaml_float(node)
        except ValueError as error:
            raise _unfit(node) from error
        plain = shortened(str(number), LONGEST)
        either = f"put quotes around it, or write {plain}"
        raise _Refused(f"{_short(node)} is the number {plain} to YAML; {either}", node)


def _unfit(node: Node) -> ConstructorError:
    return ConstructorError(
        problem=f"a value does not fit {node.tag.replace(_TAG, '!!')}", problem_mark=node.start_mark
    )


def _check_texts(root: Node, names: Collection[str]) -> None:
    """Returns where all that stands under ``names`` is text or whole numbers; a key may have no value."""
    if not isinstance(root, MappingNode):
        return
    for name, node in root.value:
        if name.value not in names:
            continue
        is_mapping = isinstance(node, MappingNode)  # whose keys were looked at
        words = [value for _, value in node.value if value.tag != _NULL] if is_mapping else _children(node)
        for word in words:
            if isinstance(word, ScalarNode):
                _check_text(word)


def _check_text(node: ScalarNode) -> None:
    if node.tag in _NO_TEXT:
        raise _Refused(f"{_short(node) or 'what is empty'} is not text to YAML; put quotes around it", node)


def _short(node: ScalarNode) -> str:
    return shortened(str(node.value), LONGEST)


def _where(text: str, error: yaml.YAMLError) -> str:
    if isinstance(error, ReaderError):
        return f", line {text[: error.position].count(chr(10)) + 1}"
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark else ""


def _problem(error: yaml.YAMLError) -> str:
    return str(getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable")
