"""Processes of their own for tests, forked from one that has imported all they need, which takes seconds.

Their ids, signals, streams, exit codes and ends are those of any process. What a process imports, and in which order,
others prove, with processes that were not forked.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, TypeVar

import pytest
from commands import Result

Found = TypeVar("Found")
HEARD = signal.default_int_handler


def forking() -> ForkServerContext:
    """A context of multiprocessing whose processes are forks of the one that has imported all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["imported"])
    with pytest.MonkeyPatch.context() as patch:
        # The very code that is tested here, whatever copy of it is installed.
        for folder in (Path(__file__).parents[2], Path(__file__).parent):
            patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        ensure_running()
    return context


def apart(act: Callable[..., Found], *arguments: Any) -> Found:
    """What ``act`` returns or raises in a process of its own; it is a function of a helper."""
    with ProcessPoolExecutor(1, forking()) as pool:
        return pool.submit(act, *arguments).result()


def ended(act: Callable[..., object], *arguments: Any) -> int | None:
    """The exit code of a process that does ``act``, a function of a helper; minus the signal that ended it."""
    process = forking().Process(target=act, args=arguments)
    process.start()
    process.join()
    return process.exitcode


@dataclass(frozen=True)
class Command:
    """A command that runs in a process of its own."""

    process: ForkServerProcess
    stdout: IO[str]
    stderr: IO[str]

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid or 0, number)

    def end(self, seconds: float = 60) -> Result:
        """How it ended, with what it printed and nobody has read yet."""
        printed = self.stdout.read()
        self.process.join(seconds)
        code = self.process.exitcode
        assert code is not None, "it does not end"
        return Result("listflow", code, printed, self.stderr.read())


@contextmanager
def started(
    *arguments: str | Path,
    env: Mapping[str, str],
    cwd: Path | None = None,
    interrupts: Any = signal.default_int_handler,
) -> Iterator[Command]:
    """``listflow ...``, killed with the block unless it has ended; ``interrupts`` is what it has for SIGINT."""
    out, its_out = multiprocessing.Pipe(duplex=False)
    with out, NamedTemporaryFile("r") as stderr, open(out.fileno(), closefd=False) as stdout:
        given = ([*map(str, arguments)], dict(env), str(cwd or Path.cwd()), interrupts, its_out, stderr.name)
        process = forking().Process(target=_run, args=given)
        process.start()
        its_out.close()
        try:
            yield Command(process, stdout, stderr)
        finally:
            process.kill()
            process.join()


def _run(arguments: list[str], env: dict[str, str], cwd: str, interrupts: Any, out: Connection, err: str) -> None:
    from prefect.context import refresh_global_settings_context
    from torch import set_num_threads

    from listflow.flows.cli.main import main

    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    signal.signal(signal.SIGINT, interrupts)
    sys.argv = ["listflow", *arguments]
    os.dup2(out.fileno(), 1)
    out.close()
    os.dup2(os.open(err, os.O_WRONLY | os.O_APPEND), 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", 1, closefd=False)  # noqa: SIM115
    refresh_global_settings_context()
    set_num_threads(int(env["OMP_NUM_THREADS"]))
    try:
        main()
    finally:  # as at the end of a process that was not forked
        threading._shutdown()
        atexit._run_exitfuncs()
