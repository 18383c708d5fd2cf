"""Runs that are interrupted or killed, and what their files hold in the end."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forks import apart
from kill_worker import run_with_kills
from tiny import tiny_overlay

STABLE = ("final/weights.safetensors", "predictions.parquet", "round-02/student/meta_weights.parquet")


def digests(run: Path) -> dict[str, str]:
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in STABLE}


def killed_and_resumed(
    files: dict[str, Path], folder: Path, kills: int, dropout: bool, seed: int, **values: object
) -> None:
    plain, killed = (
        tiny_overlay(files, folder / name) | {"checkpoint_seconds": 0, "dropout": dropout} | values
        for name in ("plain", "killed")
    )
    assert apart(run_with_kills, plain, killed, kills, seed) == kills
    assert digests(folder / "killed") == digests(folder / "plain")


class Interrupted(BaseException):
    """What a signal handler raises in this file, at any bytecode."""


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    def raise_it(number: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGINT, raise_it)
    signal.signal(signal.SIGALRM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)  # it may come even here
    except Interrupted:
        pass
    finally:
        signal.signal(signal.SIGINT, before)


def hashed(run: Path) -> dict[str, str]:
    """sha256 of all files of a run that have no time in them."""
    timed = {"manifest.json", "report.json", "report.html", "config.json", ".lock"}
    files = [path for path in run.rglob("*") if path.is_file() and path.name not in timed]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def settled(run: Path) -> dict[str, object]:
    """What the files of a run hold, but for the seconds that its parts took, and its page, which tells them."""
    named = {"config.json", "report.html", ".lock"}
    files = [path for path in run.rglob("*") if path.is_file() and path.name not in named]
    timed = {"manifest.json", "report.json"}
    return {
        str(path.relative_to(run)): _untimed(json.loads(path.read_text("utf-8")))
        if path.name in timed
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def _untimed(value: object) -> object:
    if isinstance(value, dict):
        return {key: _untimed(item) for key, item in value.items() if key != "seconds"}
    return [_untimed(item) for item in value] if isinstance(value, list) else value
