"""``run``, ``resume`` and ``plan``: a run, from what is asked to what it came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from listflow.data.files import short
from listflow.flows.cli.console import (
    UNEXPECTED,
    Terminated,
    counted,
    fail,
    heeding_sigterm,
    interrupted,
    plain_console,
    prepare,
    print_json,
    print_line,
)
from listflow.flows.cli.options import AsJson, Asked, RunPath, Verbose, asks
from listflow.flows.cli.progress import Display, show_plan
from listflow.flows.cli.results import show_lineage
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from listflow.pipeline.run.opening import Found


@asks
def run(asked: Asked, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Train a classifier from few labelled and many unlabelled texts. Without options: the demo."""
    prepare(verbose)
    _train(asked.to_config(), as_json)


def resume(folder: RunPath, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Go on with an interrupted run; repair a damaged one. One that is finished and whole is only shown."""
    prepare(verbose)
    from listflow.pipeline.results.outcome import is_whole
    from listflow.pipeline.run.record import load_config

    config = load_config(folder)
    if is_whole(folder):
        _show_outcome(folder, as_json)
    else:
        _train(config, as_json)


@asks
def plan(asked: Asked, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Show what a run would do, and how long it would take. Trains nothing and keeps nothing."""
    prepare(verbose)
    from listflow.pipeline.training.plan import make_plan

    found = make_plan(asked.to_config())
    show_plan(found, plain_console(stderr=as_json))
    if as_json:
        print_json(asdict(found), is_ascii=False)


def _train(config: RunConfig, as_json: bool) -> None:
    from listflow.pipeline.run.opening import look_up

    # Bad input should not have to wait until Prefect is up.
    train(look_up(config), as_json)


def train(found: Found, as_json: bool, goes_on: bool = False) -> None:
    """Trains what was looked up, and shows what it came to, and how to go on unless it ``goes_on`` by itself."""
    config = found.asked
    folder = _follow(found, Display(plain_console(stderr=as_json), config.rounds.count))
    _show_outcome(folder, as_json, goes_on)


def _follow(found: Found, display: Display) -> Path:
    """The folder of the finished run. Ends the process, saying how to go on, when it is interrupted."""
    from httpx import TransportError

    from listflow.flows.run.cancellation import Stopped
    from listflow.flows.server.client import awaited_server

    try:
        with heeding_sigterm(), display:
            with awaited_server():
                work = _prepared(found, display)
            return work()
    except (KeyboardInterrupt, Stopped, Terminated) as stopped:
        interrupted(stopped, _how_to_go_on(display.folder))
    except TransportError as error:
        fail(f"the Prefect server went away ({error}); {_how_to_go_on(display.folder)}", UNEXPECTED)


def _prepared(found: Found, display: Display) -> Callable[[], Path]:
    """What trains, with all that it takes seconds to load."""
    from prefect import tags

    from listflow.flows.run.naming import tags_of
    from listflow.flows.run.self_training import self_train
    from listflow.flows.run.session import looked_up, watched_by

    config, ready = found.asked, found.with_backbone()

    def work() -> Path:
        with watched_by(display), looked_up(ready), tags(*tags_of(config)):
            return Path(self_train(config)["run"])

    return work


def _how_to_go_on(folder: Path | None) -> str:
    """The end of a sentence on a run in ``folder`` that stopped."""
    if folder is None:
        return "the same command goes on from there."
    return f"what is finished is kept. Go on with: listflow resume {short(folder)}"


def _show_outcome(folder: Path, as_json: bool, goes_on: bool = False) -> None:
    from listflow.pipeline.results.outcome import report_of
    from listflow.pipeline.results.rendering import text_table
    from listflow.pipeline.run.record import load_config
    from listflow.pipeline.run.sources import rows_since

    console, report = plain_console(stderr=as_json), report_of(folder)
    console.print(text_table(report))
    show_lineage(report, folder, console)
    files = RunFolder(folder)
    for path in (files.page, files.predictions):
        print_line(console, short(path))
    if not goes_on and (grown := rows_since(load_config(folder))):
        words = f"{counted(grown, 'row')} ingested since this run began; learn from what is new with"
        print_line(console, f"{words}: listflow run --continue {short(folder)}")
    if as_json:
        print_json(report.to_dict(), is_ascii=False)
