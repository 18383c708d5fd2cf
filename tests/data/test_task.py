"""Tasks: the grammar of templates, YAML files, built-ins, renamed columns."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from listflow.data.errors import InputError
from listflow.data.task import Columns, Task, builtin_tasks, infer_task, load_task, parse_columns
from listflow.data.template import MODIFIERS, Part

PAPER = {"mnli", "rte", "qqp", "sst2", "subj", "mpqa"}


def task(template: str) -> Task:
    return Task.model_validate({"name": "t", "template": template, "labels": ["a", "b"]})


def task_file(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, "utf-8")
    return str(path)


def test_built_in_tasks_load() -> None:
    assert PAPER | {"agnews", "sms_spam"} <= set(builtin_tasks())
    for name in builtin_tasks():
        loaded = load_task(name)
        assert loaded.name == name
        assert all(loaded.labels.values()), "a built-in names all its label words"


def test_pair_tasks_are_the_ones_with_two_texts() -> None:
    assert {name for name in PAPER if load_task(name).is_pair} == {"mnli", "rte", "qqp"}


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


def test_list_of_labels_leaves_words_open_and_keeps_order(tmp_path: Path) -> None:
    loaded = load_task(task_file(tmp_path, "name: t\ntemplate: '{text} {mask}'\nlabels: [z, 1, a]\n"))
    assert list(loaded.labels.items()) == [("z", None), ("1", None), ("a", None)]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("labels: [a]", "labels: "),
        ("labels: [a, b, a]", "labels repeat"),
        ("labels: {1: x, '1': y}", "labels repeat"),
        ("labels: [{a: b}, c]", "put quotes around it"),
        ("labels: a", "give a list"),
        ("labels: {a: yes, b: no}", "put quotes around it"),
        ("labels: {a: same, b: same}", "share a label word"),
        ("labels: {a: x, b: ' '}", "must not be blank"),
        ("labels: [a, b]\nlowre: true", "did you mean 'lower'"),
        ("labels: [a, b]\ncolumns: {txt: body}", "did you mean 'text'"),
        ("", "key 'labels' is missing"),
        ("labels: [a, b", "not valid YAML"),
        ("labels: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_bad_task_files_name_file_and_key(tmp_path: Path, body: str, complaint: str) -> None:
    with pytest.raises(InputError, match=r"mine\.yaml") as raised:
        load_task(task_file(tmp_path, f"name: t\ntemplate: '{{text}} {{mask}}'\n{body}\n"))
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_task_file_that_is_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must hold the keys"):
        load_task(task_file(tmp_path, "- a\n"))


def test_task_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"name: caf\xe9")
    with pytest.raises(InputError, match="save the task file as UTF-8"):
        load_task(str(path))


def test_unknown_task_lists_built_ins_and_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'agnews'") as raised:
        load_task("ag_news")
    assert all(name in str(raised.value) for name in PAPER)


def test_missing_task_file() -> None:
    with pytest.raises(InputError, match=r"No task file 'no/such\.yaml'"):
        load_task("no/such.yaml")


def test_columns_are_renamed() -> None:
    assert parse_columns("text=body, label = intent") == Columns(text="body", label="intent")
    assert parse_columns("text=a=b").text == "a=b"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("body", "KEY=NAME"),
        ("text=", "KEY=NAME"),
        ("", "KEY=NAME"),
        ("lable=x", "did you mean 'label'"),
        ("text=a,text=b", "given twice"),
        ("text=x,label=x", "two uses"),
        ("text_a=x,text_b=x", "two uses"),
    ],
)
def test_bad_columns(text: str, complaint: str) -> None:
    with pytest.raises(InputError, match="--columns") as raised:
        parse_columns(text)
    assert complaint in str(raised.value)


def test_infer_task() -> None:
    single = infer_task(["b", "a", "b"], is_pair=False)
    assert (single.name, single.labels, single.is_pair) == ("custom", {"a": None, "b": None}, False)
    assert list(single.labels) == ["a", "b"]
    assert infer_task(["a", "b"], is_pair=True).is_pair


@pytest.mark.parametrize("labels", [["a", "a"], [], [str(number) for number in range(1001)]])
def test_infer_task_refuses_what_is_no_label_column(labels: list[str]) -> None:
    with pytest.raises(InputError, match="--columns label=NAME"):
        infer_task(labels, is_pair=False)
