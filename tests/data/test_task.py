"""Tasks: YAML files, built-ins, renamed columns."""

from pathlib import Path

import pytest

from listflow.data.errors import InputError
from listflow.data.task import Columns, Task, builtin_tasks, infer_task, load_task, parse_columns

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


def test_list_of_labels_leaves_words_open_and_keeps_order(tmp_path: Path) -> None:
    loaded = load_task(task_file(tmp_path, "name: t\ntemplate: '{text} {mask}'\nlabels: [z, 1, a]\n"))
    assert list(loaded.labels.items()) == [("z", None), ("1", None), ("a", None)]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("labels: [a]", "labels: "),
        ("labels: [a, b, a]", "labels repeat"),
        ("labels: {1: x, '1': y}", "the key 1 is there twice"),
        ("labels: {1: x, '1 ': y}", "labels repeat"),
        ("labels: [{a: b}, c]", "put quotes around it"),
        ("labels: a", "give a list"),
        ("labels: {a: x, b: true}", "line 3: true is not text to YAML; put quotes around it"),
        ("labels: [a, 1.50]", "line 3: 1.50 is not text to YAML; put quotes around it"),
        ("labels: {010: x, 011: y}", "line 3: 010 is the number 8 to YAML; put quotes around it"),
        ("labels:\n  a: x\n  b: y\n  a: z", "lines 4 and 6: the key a is there twice"),
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


def test_what_looks_like_text_is_text(tmp_path: Path) -> None:
    """As a file of rows has it: `yes` there is no truth value, and 08 no number."""
    body = "name: no\ntemplate: '{text} {mask}'\nlabels: {yes: good, off: no, 08: y, 2024-01-01: later, '010': ten}\n"
    loaded = load_task(task_file(tmp_path, body))
    assert loaded.name == "no"
    assert loaded.labels == {"yes": "good", "off": "no", "08": "y", "2024-01-01": "later", "010": "ten"}


def test_a_task_file_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    task_file(tmp_path, "name: t\ntemplate: '{text} {mask}'\nlabels: [a, b]\n")
    assert load_task("~/mine.yaml").name == "t"


def test_descriptions_and_shares(tmp_path: Path) -> None:
    body = (
        "name: t\ntemplate: '{text} {mask}'\nlabels: [1, b, c]\n"
        "descriptions:\n  1: >\n    It is about\n    money.\nshares: {c: 0.2, b: 0.3, 1: 0.4999}\n"
    )
    loaded = load_task(task_file(tmp_path, body))
    assert loaded.descriptions == {"1": "It is about money."}
    assert loaded.shares == {"c": 0.2, "b": 0.3, "1": 0.4999}
    assert Task.model_validate(loaded.model_dump(mode="json")) == loaded


def test_a_task_that_says_no_more_is_written_as_before_there_was_more() -> None:
    """Its dump is part of what a run is known by."""
    dumped = task("{text} {mask}").model_dump(mode="json")
    assert list(dumped) == ["name", "description", "template", "labels", "lower", "columns"]
    assert Task.model_validate(dumped) == task("{text} {mask}")


def test_task_file_that_is_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must hold the keys"):
        load_task(task_file(tmp_path, "- a\n"))


def test_task_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"name: caf\xe9")
    with pytest.raises(InputError, match="save it as UTF-8"):
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
    assert parse_columns(' text = say "hi" ,label=it\'s') == Columns(text='say "hi"', label="it's")


@pytest.mark.parametrize(
    "text", ['text="What, in ""your"" words?", label=topic', '"text=What, in ""your"" words?",label=topic']
)
def test_a_column_with_a_comma_stands_in_quotes(text: str) -> None:
    assert parse_columns(text) == Columns(text='What, in "your" words?', label="topic")


def test_columns_are_spelled_in_one_way() -> None:
    assert parse_columns("text=cafe\u0301").text == Columns(text="cafe\u0301").text == "caf\u00e9"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("body", "KEY=NAME"),
        ("text=", "KEY=NAME"),
        ("", "KEY=NAME"),
        ("lable=x", "did you mean 'label'"),
        ("text=a,text=b", "given twice"),
        ("text=a,", "'' is not KEY=NAME"),
        ("text=Well, then,label=x", "'then' is not KEY=NAME; write for example text=body, and put double quotes"),
        ('text="Well, then', "'then' is not KEY=NAME"),
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


def test_labels_of_a_task_file_are_spelled_in_one_way(tmp_path: Path) -> None:
    said = "descriptions: {cafe\u0301: Warm.}\nshares: {cafe\u0301: 0.5, tea: 0.5}\ncolumns: {text: cafe\u0301}\n"
    found = load_task(
        task_file(tmp_path, "name: t\ntemplate: '{text} {mask}'\nlabels: {cafe\u0301: coffee, tea: tea}\n" + said)
    )
    assert list(found.labels) == list(found.shares or {}) == ["caf\u00e9", "tea"]
    assert (found.descriptions, found.columns.text) == ({"caf\u00e9": "Warm."}, "caf\u00e9")
    with pytest.raises(InputError, match="two differ in their Unicode spelling only; give each label once"):
        load_task(task_file(tmp_path, "name: t\ntemplate: '{text} {mask}'\nlabels: [cafe\u0301, caf\u00e9]\n"))
