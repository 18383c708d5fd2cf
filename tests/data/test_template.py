"""The grammar of templates: parts, modifiers, and what is wrong with one that cannot be read."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from listflow.data.errors import InputError
from listflow.data.task import Task, load_task
from listflow.data.template import MODIFIERS, Part


def task(template: str) -> Task:
    return Task.model_validate({"name": "t", "template": template, "labels": ["a", "b"]})


def task_file(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, "utf-8")
    return str(path)


def test_nli_template_in_parts() -> None:
    assert load_task("mnli").template_parts() == (
        Part("text", modifier="drop_last"),
        Part("literal", "? "),
        Part("mask"),
        Part("literal", ", "),
        Part("pair", modifier="lower_first"),
    )


def test_escaped_braces_join_their_literal() -> None:
    assert task("{{x}} [MASK] {text}{mask}").template_parts() == (
        Part("literal", "{x} [MASK] "),
        Part("text"),
        Part("mask"),
    )


def test_soft_marks_may_stand_anywhere_and_say_how_many() -> None:
    assert task("{soft} {text}{soft:12}{mask}").template_parts() == (
        Part("soft", count=1),
        Part("literal", " "),
        Part("text"),
        Part("soft", count=12),
        Part("mask"),
    )


@pytest.mark.parametrize(("text", "last", "first"), [("Who?", "Who", "who?"), ("", "", ""), ("Ä", "", "ä")])
def test_modifiers(text: str, last: str, first: str) -> None:
    assert (MODIFIERS["drop_last"](text), MODIFIERS["lower_first"](text)) == (last, first)


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{text} It was.", "0 {mask} fields"),
        ("{text} {mask} {mask}", "2 {mask} fields"),
        ("It was {mask}.", "needs one {text}"),
        ("{text_a} {mask}", "{text_a} and one {text_b}"),
        ("{text} {text_b} {mask}", "needs one {text}"),
        ("{text} {text} {mask}", "needs one {text}"),
        ("{txt} {mask}", "did you mean 'text'"),
        ("{text:drop_frist} {mask}", "is no modifier"),
        ("{text} {mask:drop_last}", "is no modifier"),
        ("{text!r} {mask}", "is no modifier"),
        ("{text} {soft:0} {mask}", "{soft:0} is no number of tokens"),
        ("{text} {soft:many} {mask}", "write 1 to 256"),
        ("{text.__class__} {mask}", "unknown field"),
        ("{} {mask}", "unknown field"),
        ("{text} {mask", "literal brace twice"),
        ("{text}} {mask}", "literal brace twice"),
    ],
)
def test_bad_templates_say_what_is_wrong(tmp_path: Path, template: str, complaint: str) -> None:
    with pytest.raises(ValidationError):
        task(template)
    with pytest.raises(InputError, match=r"mine\.yaml: template: ") as raised:
        load_task(task_file(tmp_path, f"name: t\ntemplate: '{template}'\nlabels: [a, b]\n"))
    assert complaint in str(raised.value)
