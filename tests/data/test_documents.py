"""YAML as it is written: nothing is taken for something else, nothing is lost, nothing small becomes large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from listflow.data.documents import DEEPEST, MOST_BYTES, parse_yaml, read_yaml
from listflow.data.errors import InputError


def refused(text: str) -> str:
    with pytest.raises(InputError) as raised:
        parse_yaml(text, "my.yaml", texts=("labels",))
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("steps: 100", {"steps": 100}),
        ("a: -3\nb: 0.5\nc: 1.5e-3\nd: .5", {"a": -3, "b": 0.5, "c": 0.0015, "d": 0.5}),
        ("a: true\nb: FALSE\nc: null\nd: ~\ne:", {"a": True, "b": False, "c": None, "d": None, "e": None}),
        ("a: yes\nb: off\nc: n", {"a": "yes", "b": "off", "c": "n"}),
        ("a: 2024-01-31\nb: 1e3\nc: 08\nd: =", {"a": "2024-01-31", "b": "1e3", "c": "08", "d": "="}),
        ("a: '010'\nb: \"12:30\"\nc: !!str 010", {"a": "010", "b": "12:30", "c": "010"}),
        ("a: &x {b: 1}\nc: {<<: *x, d: 2}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("labels: {a: , b: word}", {"labels": {"a": None, "b": "word"}}),
        ("", None),
    ],
)
def test_what_is_read(text: str, value: Any) -> None:
    assert parse_yaml(text, "my.yaml", texts=("labels",)) == value


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("010", "8"), ("12:30", "750"), ("1_000", "1000"), ("0x1F", "31"), ("+5", "5"), ("1_0.5", "10.5"),
        ("1:30.5", "90.5"),
    ],
)  # fmt: skip
def test_quotes_are_asked_for_where_yaml_has_another_number(written: str, number: str) -> None:
    asked = f"{written} is the number {number} to YAML; put quotes around it, or write {number}."
    assert refused(f"a: 1\nb: [{written}]") == f"my.yaml, line 2: {asked}"
    assert refused(f"a:\n  {written}: x") == f"my.yaml, line 2: {asked}"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb: 2\na: 3", ", lines 1 and 3: the key a is there twice; keep one of them."),
        ("s:\n  b: 1\n  'b': 2", ", lines 2 and 3: the key b is there twice; keep one of them."),
        ("true: x", ", line 1: true is not text to YAML; put quotes around it."),
        ("labels: [a, 1.50]", ", line 1: 1.50 is not text to YAML; put quotes around it."),
        ("labels: {a: x, b: true}", ", line 1: true is not text to YAML; put quotes around it."),
        ("labels: [a, ]\nb: {1.5: 2}", ", line 2: 1.5 is not text to YAML; put quotes around it."),
        ("a: " + "9" * 5000, f", line 1: {'9' * 37}... is a number of more than 4,300 digits; put quotes around it."),
        ("x:\na: &a {b: *a}", ", line 2: holds an alias of something that it is part of; write it out."),
        ("a: [1", ", line 1: is not valid YAML (expected ',' or ']', but got '<stream end>'); correct it."),
        ("a: 1\nb: \a", ", line 2: is not valid YAML (special characters are not allowed); correct it."),
        ("a: !!int abc", ", line 1: is not valid YAML (a value does not fit !!int); correct it."),
        ("{a: b}: c", ", line 1: is not valid YAML (found unhashable key); correct it."),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, sentence: str) -> None:
    assert refused(text) == f"my.yaml{sentence}"


def test_nothing_is_made_by_name() -> None:
    assert "not valid YAML" in refused("a: !!python/object/apply:os.getcwd []")


@pytest.mark.parametrize("text", ["[" * 20_000, "{a: " * 20_000, "- " * 20_000, "a: " + "[" * DEEPEST + "]" * DEEPEST])
def test_nesting_is_limited(text: str) -> None:
    asked = f"has more than {DEEPEST} lists or mappings within each other; write it flatter."
    assert refused(text) == f"my.yaml, line 1: {asked}"


def test_aliases_cannot_make_much_of_little() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    assert "my.yaml: its aliases make" in refused("\n".join(lines))


def test_aliases_cannot_make_nesting_of_little() -> None:
    deep = "[" * 60 + "x" + "]" * 60
    assert "my.yaml: its aliases make" in refused(f"a: &a {deep}\nb: {'[' * 60}*a{']' * 60}")


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: caf\xc3\xa9")
    assert read_yaml(path, "pass another") == {"a": "café"}
    path.write_bytes(b"a: caf\xe9")
    with pytest.raises(InputError, match=r"my\.yaml: is not UTF-8 text; save it as UTF-8\.$"):
        read_yaml(path, "pass another")
    with pytest.raises(InputError, match=r"cannot be read \(No such file or directory\); pass another\.$"):
        read_yaml(tmp_path / "absent.yaml", "pass another")


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(InputError, match=rf"/dev/zero: is longer than {MOST_BYTES:,} bytes; pass another\.$"):
        read_yaml(Path("/dev/zero"), "pass another")
