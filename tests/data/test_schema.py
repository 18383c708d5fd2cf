"""Mistakes in values that a person writes: every sentence word for word."""

from __future__ import annotations

from pathlib import Path

import pytest

from listflow.data.errors import InputError, did_you_mean, nearest
from listflow.data.task import load_task, parse_columns

GOOD = {"name": "t", "template": "'{text} {mask}'", "labels": "[a, b]"}
TASK_KEYS = "use name, description, template, labels, descriptions, shares, lower, columns."
COLUMNS_KEYS = "use text, text_a, text_b, label."

TASK_FILES: dict[str, tuple[dict[str, str], str]] = {
    "one label": (
        {"labels": "[a]"},
        "labels: Dictionary should have at least 2 items after validation, not 1.",
    ),
    "too many labels": (
        {"labels": str([str(number) for number in range(1001)])},
        "labels: Dictionary should have at most 1000 items after validation, not more.",
    ),
    "no list of labels": (
        {"labels": "a"},
        "labels: give a list of labels, or a mapping from each label to its label word.",
    ),
    "labels repeat": ({"labels": "[a, b, a]"}, "labels: the labels repeat: give each label once."),
    "label is true to YAML": (
        {"labels": "{a: true, b: no}"},
        "line 3: true is not text to YAML; put quotes around it.",
    ),
    "label is a number to YAML": (
        {"labels": "[12:30, b]"},
        "line 3: 12:30 is the number 750 to YAML; put quotes around it, or write 750.",
    ),
    "shared label word": (
        {"labels": "{a: same, b: same}"},
        "labels 'a' and 'b' share a label word, 'same': give each its own.",
    ),
    "blank label word": ({"labels": "{a: x, b: ' '}"}, "labels and label words must not be blank."),
    "no labels": ({"labels": ""}, "the key 'labels' is missing; add it."),
    "no name": ({"name": ""}, "the key 'name' is missing; add it."),
    "no template": ({"template": ""}, "the key 'template' is missing; add it."),
    "empty name": ({"name": "''"}, "name: String should have at least 1 character."),
    "long name": ({"name": "n" * 81}, "name: String should have at most 80 characters."),
    "number for a name": ({"name": "3"}, "name: Input should be a valid string."),
    "number for a template": ({"template": "3"}, "template: Input should be a valid string."),
    "field of a template": (
        {"template": "'{txt} {mask}'"},
        "template: Template '{txt} {mask}': unknown field {txt} (did you mean 'text'?); "
        "use text, text_a, text_b, mask, soft.",
    ),
    "mask of a template": (
        {"template": "'{text}'"},
        "template: Template '{text}': has 0 {mask} fields; it needs exactly one.",
    ),
    "long description": (
        {"description": "d" * 2001},
        "description: String should have at most 2000 characters.",
    ),
    "description of nothing": ({"description": "null"}, "description: Input should be a valid string."),
    "lower": (
        {"lower": "perhaps"},
        "lower: Input should be a valid boolean, unable to interpret input.",
    ),
    "unknown key": ({"lowre": "true"}, f"unknown key 'lowre' (did you mean 'lower'?); {TASK_KEYS}"),
    "unknown key in capitals": ({"LOWER": "true"}, f"unknown key 'LOWER' (did you mean 'lower'?); {TASK_KEYS}"),
    "unknown key like no other": ({"zzz": "true"}, f"unknown key 'zzz'; {TASK_KEYS}"),
    "unknown key with a dot": (
        {"name.text": "body"},
        f"unknown key 'name.text' (did you mean 'name'?); {TASK_KEYS}",
    ),
    "number for a key": ({"1": "true"}, "1: Keys should be strings."),
    "no mapping of columns": (
        {"columns": "text=body"},
        "columns: Input should be a valid dictionary or instance of Columns.",
    ),
    "description of no label": (
        {"descriptions": "{a: good, zzz: bad}"},
        "descriptions: 'zzz' is no label; name labels of the task.",
    ),
    "description of a label with a slip": (
        {"labels": "[billing, b]", "descriptions": "{biling: money}"},
        "descriptions: 'biling' is no label (did you mean 'billing'?); name labels of the task.",
    ),
    "blank description": ({"descriptions": "{a: ' '}"}, "descriptions.a: String should have at least 1 character."),
    "no sentence": ({"descriptions": "{a: 3}"}, "descriptions.a: Input should be a valid string."),
    "long label description": (
        {"descriptions": "{a: " + "d" * 301 + "}"},
        "descriptions.a: String should have at most 300 characters.",
    ),
    "descriptions in a list": ({"descriptions": "[a]"}, "descriptions: give a mapping that names labels."),
    "described label that is true to YAML": (
        {"descriptions": "{true: it is}"},
        "line 4: true is not text to YAML; put quotes around it.",
    ),
    "share of no label": (
        {"shares": "{a: 0.5, zzz: 0.5}"},
        "shares: 'zzz' is no label; name labels of the task.",
    ),
    "label without a share": ({"shares": "{a: 1}"}, "shares: label 'b' has none; give the share of every label."),
    "shares that do not sum to 1": (
        {"shares": "{a: 0.5, b: 0.6}"},
        "shares: they sum to 1.1; let them sum to 1.",
    ),
    "share of nothing": ({"shares": "{a: 1, b: 0}"}, "shares.b: Input should be greater than 0."),
    "share above 1": ({"shares": "{a: 60, b: 40}"}, "shares.a: Input should be less than or equal to 1."),
    "share that is no number": (
        {"shares": "{a: half, b: 0.5}"},
        "shares.a: Input should be a valid number, unable to parse string as a number.",
    ),
    "unknown column": (
        {"columns": "{txt: body}"},
        f"unknown key 'columns.txt' (did you mean 'text'?); {COLUMNS_KEYS}",
    ),
    "unknown column like no other": (
        {"columns": "{zzz: body}"},
        f"unknown key 'columns.zzz'; {COLUMNS_KEYS}",
    ),
    "column written with a dot": ({"columns.text": "body"}, f"unknown key 'columns.text'; {COLUMNS_KEYS}"),
    "column written with two dots": ({"columns.text.x": "body"}, f"unknown key 'columns.text.x'; {COLUMNS_KEYS}"),
    "empty column": ({"columns": "{text: ''}"}, "columns.text: String should have at least 1 character."),
    "number for a column": ({"columns": "{text: 3}"}, "columns.text: Input should be a valid string."),
    "number for a column's key": ({"columns": "{1: x}"}, "columns.1: Keys should be strings."),
    "column with two uses": (
        {"columns": "{label: text}"},
        "columns: one column has two uses: name a different column for each.",
    ),
    "the first of two mistakes": (
        {"zzz": "true", "columns": "{txt: body}"},
        f"unknown key 'columns.txt' (did you mean 'text'?); {COLUMNS_KEYS}",
    ),
}


@pytest.mark.parametrize("case", TASK_FILES)
def test_a_task_file_is_refused_by_its_key(case: str, tmp_path: Path) -> None:
    changes, sentence = TASK_FILES[case]
    path = tmp_path / "mine.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in (GOOD | changes).items() if value), "utf-8")
    with pytest.raises(InputError) as raised:
        load_task(str(path))
    assert str(raised.value) == f"{path}{',' if sentence.startswith('line') else ':'} {sentence}"


@pytest.mark.parametrize("text", ["text=x,label=x", "text_a=x,text_b=x", "text=label"])
def test_columns_of_two_uses_are_refused(text: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_columns(text)
    told = "one column has two uses: name a different column for each."
    assert str(raised.value) == f"--columns {text!r}: {told}"


def test_the_likeliest_name() -> None:
    known = ["houlsby", "lora"]
    assert nearest("houlsbi", known) == "did you mean 'houlsby'?"
    assert nearest("LORA", known) == nearest("zzz", known) == "use one of: houlsby, lora."
    assert did_you_mean("houlsbi", known) == " (did you mean 'houlsby'?)"
    assert did_you_mean("LORA", known) == " (did you mean 'lora'?)"
    assert did_you_mean("spam", ["Spam"]) == " (did you mean 'Spam'?)"
    assert did_you_mean("zzz", known) == ""
