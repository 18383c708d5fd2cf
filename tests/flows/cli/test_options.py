"""What a person asks for, in options and in a configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from listflow.data.errors import InputError
from listflow.flows.cli.options import Asked, at_home, parse_set


@pytest.mark.parametrize(
    ("item", "values"),
    [
        ("student.steps=100", {"student": {"steps": 100}}),
        ("student.learning_rate=1e-3", {"student": {"learning_rate": "1e-3"}}),
        ("data.balanced=no", {"data": {"balanced": "no"}}),
        ("second=null", {"second": None}),
        ("data.columns=text=body", {"data": {"columns": "text=body"}}),
    ],
)
def test_a_value_is_read_as_it_is_written(item: str, values: dict[str, Any]) -> None:
    assert parse_set(item) == values


def test_words_for_yes_and_no_still_switch() -> None:
    assert not Asked(set=["data.balanced=no", "dropout=off"]).to_config().data.balanced
    assert not Asked(set=["dropout=off"]).to_config().dropout
    assert Asked(set=["dropout=yes"]).to_config().dropout


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        ("student.steps=0100",
         "--set 'student.steps=0100': 0100 is the number 64 to YAML; put quotes around it, or"
         " write 64."),
        ("seed=12:30", "--set 'seed=12:30': 12:30 is the number 750 to YAML; put quotes around it, or write 750."),
        ("a={b: 1, b: 2}", "--set 'a={b: 1, b: 2}': the key b is there twice; keep one of them."),
        ("a=[1", "--set 'a=[1': is not valid YAML (expected ',' or ']', but got '<stream end>'); correct it."),
        ("a=" + "[" * 200,
         f"--set 'a={'[' * 75}...': has more than 100 lists or mappings within each other; write it flatter."),
        ("student.steps", "--set 'student.steps' is not KEY=VALUE; write for example student.steps=300."),
    ],
)  # fmt: skip
def test_a_value_that_could_be_meant_otherwise(item: str, sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_set(item)
    assert str(raised.value) == sentence


def test_a_section_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("student:\n  steps: 50\nstudent:\n  batch: 8\n", "utf-8")
    with pytest.raises(InputError, match=r"my\.yaml, lines 1 and 3: the key student is there twice; keep one of them"):
        Asked(config=path).to_config()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_configuration_may_name_the_home_folder(home: Path) -> None:
    asked = Asked(task="~/t.yaml", labelled="~/a.csv", unlabelled=["~/b.csv", "c.csv"], test="~/d.csv", run_dir="~/run")
    config = asked.to_config()
    assert config.task == f"{home}/t.yaml"
    assert config.data.labelled == f"{home}/a.csv"
    assert config.data.unlabelled == (f"{home}/b.csv", "c.csv")
    assert (config.data.test, config.run_dir) == (f"{home}/d.csv", f"{home}/run")
    (home / "my.yaml").write_text("run_dir: ~/other\nseed: 3\n", "utf-8")
    assert Asked(config=home / "my.yaml").to_config().run_dir == f"{home}/other"


def test_every_path_of_a_command_may_name_the_home_folder(home: Path) -> None:
    came: dict[str, Any] = {}

    def command(folder: Path, more: list[Path], words: str, none: Path | None) -> None:
        came.update(folder=folder, more=more, words=words, none=none)

    at_home(command)(folder=Path("~/run"), more=[Path("~"), Path("x/~")], words="~/run", none=None)
    assert came == {"folder": home / "run", "more": [home, Path("x/~")], "words": "~/run", "none": None}
