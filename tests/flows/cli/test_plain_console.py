"""Texts that are not ours are printed as they are, whatever they would mean as markup."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from listflow.flows.cli.console import Count, plain_console
from listflow.flows.cli.progress import Display
from listflow.flows.cli.results import gc
from listflow.pipeline.run.run import Progress

MARKUP = "[/b] [red]red"


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
