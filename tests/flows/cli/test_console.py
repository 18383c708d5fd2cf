"""What is said of a long count where no line can move, and texts that are printed as they are, not as markup."""

import json
import subprocess
import sys
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import pytest
from commands import COMMAND
from rich.console import Console
from rich.table import Table

from listflow.flows.cli.console import Count, begin, counted, plain_console, print_json, print_line, say
from listflow.flows.cli.progress import Display
from listflow.flows.cli.results import gc
from listflow.pipeline.run.run import Progress

pytest_plugins = ["flow_fixtures"]
MARKUP = "[/b] [red]red"


def test_every_tenth_is_said_once() -> None:
    said = StringIO()
    with Count(Console(file=said, width=200), "begin") as count:
        for name in ("one", "two"):
            for done in range(1, 41):
                count.show(done, 40, name, f"loss {done}")
    lines = said.getvalue().splitlines()
    assert len(lines) == 22
    assert (lines[0], lines[1], lines[10]) == ("one: 1 of 40 loss 1", "one: 4 of 40 loss 4", "one: 40 of 40 loss 40")
    assert lines[11] == "two: 1 of 40 loss 1"


def test_a_terminal_shows_one_line_that_is_gone_at_the_end() -> None:
    said = StringIO()
    with Count(Console(file=said, width=100, force_terminal=True), "begin") as count:
        count.show(40, 40, "one")
        count.show(1, 40, "two", "loss 0.5")
    assert "two" in said.getvalue()
    assert said.getvalue().endswith("\x1b[2K")


def test_one_of_something_is_singular() -> None:
    assert [counted(count, "row") for count in (0, 1, 2, 1000)] == ["0 rows", "1 row", "2 rows", "1,000 rows"]


@pytest.mark.parametrize("terminal", [True, False])
def test_what_a_run_says_is_no_markup(terminal: bool) -> None:
    said = StringIO()
    with Display(Console(file=said, width=200, force_terminal=terminal), 3) as display:
        display.moved(Progress(1, f"asked again: {MARKUP}", 0, 1))
    assert f"round 1 of 3: asked again: {MARKUP}" in said.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_counted_is_no_markup(terminal: bool) -> None:
    said = StringIO()
    with Count(Console(file=said, width=200, force_terminal=terminal), MARKUP) as count:
        count.show(1, 2, f"subspace without {MARKUP}", MARKUP)
    assert said.getvalue().count(MARKUP) >= 2


def test_a_console_of_a_command_leaves_lines_and_tables_alone(capsys: pytest.CaptureFixture[str]) -> None:
    console, table = plain_console(), Table("name")
    table.add_row(f"{MARKUP} :100:")
    for renderable in (f"{MARKUP} :100:", table):
        console.print(renderable)
        assert f"{MARKUP} :100:" in capsys.readouterr().out


def test_a_folder_with_brackets_is_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "[red]").mkdir()
    gc(tmp_path / "[red]", days=1.0)
    assert "[red]" in capsys.readouterr().out


def test_escape_sequences_and_emoji_codes_of_a_text_are_spelt_out(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("text")
    table.add_row("\x1b]52;c;eA==\x07 :100:\x9b2J")
    plain_console().print(table)
    print_line(plain_console(), ":smile: \x1b[2J")
    say("row 1: \x1b[2J")
    said = capsys.readouterr()
    assert r"\x1b]52;c;eA==\x07 :100:\x9b2J" in said.out
    assert r":smile: \x1b[2J" in said.out
    assert said.err == "listflow: row 1: \\x1b[2J\n"


@pytest.mark.parametrize("columns", ["", "40"])
def test_nothing_is_cut_where_there_is_no_terminal(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    names = [f"runs/tickets-of-the-support-team-{number}" for number in range(12)]
    table = Table(*names)
    table.add_row(*names)
    plain_console().print(table)
    said = capsys.readouterr().out
    assert all(said.count(f" {name} ") == 2 for name in names)


def test_json_holds_the_same_values_where_stdout_cannot_hold_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding in ("ascii", "latin-1", "utf-8"):
        raw = BytesIO()
        monkeypatch.setattr("sys.stdout", TextIOWrapper(raw, encoding))
        begin()
        print_json({"label": "\N{GRINNING FACE}é"}, is_ascii=False)
        sys.stdout.flush()
        assert json.loads(raw.getvalue().decode(encoding)) == {"label": "\N{GRINNING FACE}é"}


@pytest.mark.long
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_run_with_emoji_labels_ends_well_in_any_encoding(
    encoding: str, tiny_files: dict[str, Path], environment: dict[str, str], tmp_path: Path
) -> None:
    """As of cron: no terminal, the C locale. In a pipe figures are whole, and in a plan too."""
    happy, labelled = "\N{GRINNING FACE}", tmp_path / "labelled.csv"
    lines = [f"the {word} film was fine,{label}" for label in (happy, "traurig…") for word in ("good", "bad", "old")]
    labelled.write_text("\n".join(["text,label", *lines]), "utf-8")
    task = tmp_path / "task.yaml"
    task.write_text(
        f'name: moods\ntemplate: "{{text}} it was {{mask}} ."\nlabels: {{"{happy}": good, "traurig…": bad}}\n', "utf-8"
    )
    own = {"LC_ALL": "C", "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "COLUMNS": "80"}
    settings = (
        "teacher.epochs=1", "student.steps=4", "student.batch=4", "student.tail_epochs=1", "second=null",
        "backbone.precision=fp32", "rounds.count=1",
    )  # fmt: skip
    asked = (
        f"--task={task}", f"--labelled={labelled}", f"--test={labelled}", f"--unlabelled={tiny_files['unlabelled']}",
        f"--backbone={tiny_files['backbone']}", *(f"--set={setting}" for setting in settings),
    )  # fmt: skip
    for command in (("plan", *asked), ("run", *asked, f"--run-dir={tmp_path / 'run'}", "--json")):
        done = subprocess.run(
            [*COMMAND, *command], cwd=tmp_path, env=environment | own, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert rb"\U0001f600" in done.stdout if command[0] == "plan" else b"accuracy" in done.stderr
    assert happy in json.loads(done.stdout)["labels"]
