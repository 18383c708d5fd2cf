"""What is said of a long count where no line can move, and texts that are printed as they are, not as markup."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from listflow.flows.cli.console import Count, counted, plain_console
from listflow.flows.cli.progress import Display
from listflow.flows.cli.results import gc
from listflow.pipeline.run.run import Progress

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
