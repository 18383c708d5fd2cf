"""How far one long count is: a moving line in a terminal, a plain one for every tenth elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def counted(count: int, noun: str) -> str:
    """``count`` and ``noun``, which gets an s unless it is one."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def moving_line(console: Console) -> Progress:
    """Description, bar, done of all, a note, time left; shown in a terminal only, and gone at the end."""
    return Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip


class Count:
    """Shows what it is told, inside its block. ``words`` stand there before anything is counted."""

    def __init__(self, console: Console, words: str) -> None:
        self._console, self._bar = console, moving_line(console)
        self._line = self._bar.add_task(words, total=None, note="")
        self._said: tuple[str, int] | None = None

    def __enter__(self) -> Count:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def show(self, done: int, total: int, words: str, note: str = "") -> None:
        """``done`` of ``total``; the count begins anew where it is less than before."""
        if self._bar.tasks[0].completed > done:
            self._bar.reset(self._line)
        self._bar.update(self._line, completed=done, total=total, description=words, note=note)
        tenth = 10 * done // total
        if not self._console.is_terminal and self._said != (words, tenth):
            line = " ".join(filter(None, (f"{words}: {done:,} of {total:,}", note)))
            self._console.print(line, markup=False, highlight=False)
        self._said = words, tenth
