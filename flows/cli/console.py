"""How a command begins, prints, counts and ends.

It ends with 0 when it is done, 2 after bad input, 130 or 143 when it was interrupted, and 1 after anything else; with
one sentence, and no traceback.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NoReturn, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

BAD_INPUT, UNEXPECTED, INTERRUPTED, TERMINATED = 2, 1, 130, 143
# Prefect reads these when it is imported, so they come first, and this file imports nothing of it. With the last one
# no process that is started from here takes a file in the current folder for a library.
ALWAYS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PYTHONSAFEPATH": "1",
}
# The console only: the server still gets every line. Also for the temporary server, whose complaints about a
# locked database go to the same terminal and concern nobody, as its clients try again.
QUIET = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}

UNBOUNDED = 1_000_000
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def begin() -> None:
    """Before anything is imported or said: no file in the current folder is a library, no character ends a command."""
    sys.path[:] = [folder for folder in sys.path if folder]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in {"strict", "surrogateescape"}:
            stream.reconfigure(errors="backslashreplace")


def prepare(verbose: bool = False) -> None:
    """No analytics ever, and no chatter unless ``verbose``. What the user has set himself stays."""
    for name, value in (ALWAYS if verbose else ALWAYS | QUIET).items():
        os.environ.setdefault(name, value)
    if not verbose:
        # It is said at every start, and again in a sentence by whatever has to write there.
        warnings.filterwarnings("ignore", "Failed to create the Prefect home directory")


class PlainConsole(Console):
    """A console to which ``[b]`` and ``:100:`` are characters like others, and escape sequences are spelt out."""

    def render_str(self, text: str, **how: Any) -> Text:
        """As Rich does it for lines and for cells of tables."""
        return super().render_str(visible(text), **how)


def plain_console(stderr: bool = False) -> Console:
    """A console for what comes from anywhere. Where it is no terminal, no name and no figure is cut to a width."""
    console = PlainConsole(stderr=stderr, markup=False, emoji=False)
    if not console.file.isatty():
        console.width = UNBOUNDED
    return console


def visible(text: str) -> str:
    """``text`` with control characters as their escapes, so that a terminal obeys none; lines and tabs stay."""
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def print_line(console: Console, line: str) -> None:
    """Prints ``line`` as it is, and unbroken: a path or a command in it can be copied."""
    console.print(line, soft_wrap=True, highlight=False, markup=False, emoji=False)


def print_json(result: object, is_ascii: bool = True) -> None:
    """Prints ``result`` as one line of JSON on stdout: paths as text, and what is not ASCII escaped unless told.

    It is escaped too where stdout cannot hold it: the values are the same.
    """
    line = json.dumps(result, default=str, ensure_ascii=is_ascii)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        line = json.dumps(result, default=str)
    print(line)


def counted(count: int, noun: str) -> str:
    """``count`` and ``noun``, which gets an s unless it is one."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


@contextmanager
def counting(console: Console, words: str, unit: str) -> Iterator[Callable[[int], None]]:
    """Yields what adds to a count of ``unit``, in a terminal; ``words`` stand there before anything is counted."""
    with console.status(words) as state:
        done = 0

        def add(more: int) -> None:
            nonlocal done
            done += more
            state.update(f"{done:,} {unit}")

        yield add


class MovingLine:
    """Description, bar, done of all, a note, time left: in a terminal only, inside its block, and gone at the end."""

    def __init__(self, console: Console, words: str) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False), TimeRemainingColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self.line = self.bar.add_task(words, total=None, note="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.stop()


class Count(MovingLine):
    """How far one long count is: a moving line in a terminal, a plain one for every tenth elsewhere."""

    _said: tuple[str, int] | None = None

    def show(self, done: int, total: int, words: str, note: str = "") -> None:
        """``done`` of ``total``; the count begins anew where it is less than before."""
        if self.bar.tasks[0].completed > done:
            self.bar.reset(self.line)
        self.bar.update(self.line, completed=done, total=total, description=words, note=note)
        tenth = 10 * done // total
        if not self.console.is_terminal and self._said != (words, tenth):
            line = " ".join(filter(None, (f"{words}: {done:,} of {total:,}", note)))
            print_line(self.console, line)
        self._said = words, tenth


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
    print(f"listflow: {visible(str(sentence))}", file=sys.stderr)


def fail(sentence: str, code: int) -> NoReturn:
    """Says ``sentence`` on stderr and ends with ``code``."""
    say(sentence)
    sys.exit(code)


def interrupted(by: BaseException, how_to_go_on: str) -> NoReturn:
    """Ends a command that ``by`` has interrupted: SIGTERM, or else Ctrl-C or a cancellation in the Prefect UI."""
    fail(f"interrupted; {how_to_go_on}", TERMINATED if isinstance(by, Terminated) else INTERRUPTED)
