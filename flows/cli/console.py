"""How a command ends: 0 done, 2 bad input, 130 or 143 interrupted, 1 anything else; one sentence, no traceback."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

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


def short(path: Path) -> str:
    """``path`` as seen from here, if it lies below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
