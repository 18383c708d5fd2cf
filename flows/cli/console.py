"""How a command ends: 0 done, 2 bad input, 130 or 143 interrupted, 1 anything else; one sentence, no traceback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from listflow.data.files import short


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


ALWAYS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
}
# The console only: the server still gets every line. Also for the temporary server, whose complaints about a
# locked database go to the same terminal and concern nobody, as its clients try again.
QUIET = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def prepare(verbose: bool = False) -> None:
    """No analytics ever, and no chatter unless ``verbose``. What the user has set himself stays."""
    for name, value in (ALWAYS if verbose else ALWAYS | QUIET).items():
        os.environ.setdefault(name, value)


def plain_console(stderr: bool = False) -> Console:
    """A console to which ``[b]`` and ``:100:`` are characters like others, in lines and in tables."""
    return Console(stderr=stderr, markup=False, emoji=False)


BAD_INPUT, UNEXPECTED, INTERRUPTED, TERMINATED = 2, 1, 130, 143


class Terminated(BaseException):
    """Someone asked this process to end (SIGTERM)."""


@contextmanager
def heeding_sigterm() -> Iterator[None]:
    """SIGTERM inside the block raises ``Terminated``, so that the work can be left in order."""

    def on_signal(number: int, frame: Any) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def say(sentence: object) -> None:
    """Says ``sentence``, which may be an error's, on stderr."""
    print(f"listflow: {sentence}", file=sys.stderr)


def fail(sentence: str, code: int) -> NoReturn:
    """Says ``sentence`` on stderr and ends with ``code``."""
    say(sentence)
    sys.exit(code)


def interrupted(folder: Path | None, code: int) -> NoReturn:
    """Ends an interrupted run, saying how to go on with it."""
    fail(f"interrupted; {how_to_go_on(folder)}", code)


def how_to_go_on(folder: Path | None) -> str:
    """The end of a sentence on a run in ``folder`` that stopped."""
    if folder is None:
        return "the same command goes on from there."
    return f"what is finished is kept. Go on with: listflow resume {short(folder)}"
