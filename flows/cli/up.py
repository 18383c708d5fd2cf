"""``up``: from files to a run that goes on by itself, in one command: server, automations, the first run, serving."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

from filelock import FileLock, Timeout
from typer import Argument, Option

from listflow.data.errors import InputError
from listflow.data.files import short
from listflow.data.shards import corpus_folder, is_corpus, read_manifest
from listflow.flows.cli.console import UNEXPECTED, Terminated, heeding_sigterm, plain_console, prepare, print_line, say
from listflow.flows.cli.ingest import CORPORA
from listflow.flows.cli.options import Asked, Verbose, set_option
from listflow.flows.cli.run import train

if TYPE_CHECKING:
    from listflow.flows.run.deployment import Wanted
    from listflow.flows.server.beside import Server
    from listflow.pipeline.run.config import RunConfig
    from listflow.pipeline.run.opening import Found

RUNS, LOG = Path("runs"), "server.log"
SECONDS_TO_TELL = 10.0
tell = partial(print_line, plain_console())


def up(
    folder: Annotated[
        Path | None, Argument(metavar="[RUN]", help="The folder of a run. Default: the one run below runs/.")
    ] = None,
    corpus: Annotated[
        list[str] | None, Option(help="Go on when `listflow ingest` added to this corpus; repeatable.")
    ] = None,
    cron: Annotated[str | None, Option(help="When to go on, such as '0 6 * * mon'.")] = None,
    every: Annotated[float | None, Option(help="Or: hours from one run to the next.")] = None,
    name: Annotated[str | None, Option(help="Of the deployment. Default: that of the run's folder.")] = None,
    labelled: Annotated[
        str | None, Option(help="Makes the run first: its labelled rows; --corpus is the pool.")
    ] = None,
    task: Annotated[str | None, Option(help="Its task: built-in, or a YAML file.")] = None,
    test: Annotated[str | None, Option(help="Its labelled test rows.")] = None,
    columns: Annotated[str | None, Option(help="Column names, such as text=body,label=topic.")] = None,
    set: Annotated[list[str] | None, set_option("Any value of it, such as rounds.count=3")] = None,
    home: Annotated[Path, Option(help="The server's folder: password, client.env, database.")] = Path(".server"),
    port: Annotated[int, Option(min=1, max=65535)] = 4200,
    verbose: Verbose = False,
) -> None:
    """Start all that goes on by itself: a Prefect server, its automations, and RUN, which is made first if it is not
    there. Where a server of this folder runs, that one is joined."""
    prepare(verbose)
    asked = Asked(task=task, labelled=labelled, test=test, columns=columns, set=set)
    begun = [] if folder else heads(RUNS)
    chosen = folder or (begun[0] if len(begun) == 1 else None)
    if chosen is None:
        _refuse_without_run(asked, corpus, cron, every, name)
    plan = _planned(chosen, asked, tuple(corpus or ()), cron, every, name) if chosen else None
    _check_configured(home)
    with _ending_in_order(home) as end, ExitStack() as stack:
        server, joins = stack.enter_context(_server(home, port, chosen.parent if chosen else RUNS))
        stack.callback(_tell_the_rest, end)
        if plan:
            stack.enter_context(_only_one(home, plan.wanted))
        server.when_it_ends(end)
        _configure(server)
        for line in _screen(server, home, joins, plan, begun):
            tell(line)
        if plan:
            _go_on(plan)
        elif not joins:
            threading.Event().wait()
        server.leave()


@dataclass(frozen=True)
class Plan:
    """What is served, and the run that is made or finished before."""

    wanted: Wanted
    first: Found | None


def _refuse_without_run(asked: Asked, *serving: object) -> None:
    if any(serving) or asked != Asked():
        raise InputError("there is not exactly one run below runs/; name the run, as in `listflow up runs/NAME ...`.")


def _planned(
    folder: Path, asked: Asked, corpora: tuple[str, ...], cron: str | None, hours: float | None, name: str | None
) -> Plan:
    """InputError for whatever would end it later."""
    from listflow.flows.run.deployment import Wanted, check_wanted, deployment_of
    from listflow.pipeline.run.opening import look_up
    from listflow.pipeline.run.record import load_config
    from listflow.pipeline.run.status import status_of
    from listflow.pipeline.storage.run_folder import is_run

    if not is_run(folder):
        for one in corpora:
            read_manifest(corpus_folder(CORPORA, one))
        config = _first(folder, asked, corpora)
        wanted = Wanted(folder, cron, hours, corpora, name or folder.resolve().name)
        check_wanted(wanted)
        return Plan(wanted, look_up(config))
    config = load_config(folder)
    own = [Path(source).name for source in config.data.unlabelled if is_corpus(source)]
    for one in corpora:
        if one not in own:
            read_manifest(corpus_folder(CORPORA, one))
    by_itself = tuple(own) if not (corpora or cron or hours) else corpora
    wanted = Wanted(folder, cron, hours, by_itself, name or folder.resolve().name)
    deployment_of(wanted)
    state = status_of(folder).state
    if state == "running":
        raise InputError(f"{folder} is not finished: another process works on it; wait for it, then give this again.")
    return Plan(wanted, look_up(config) if state == "interrupted" else None)


def _first(folder: Path, asked: Asked, corpora: tuple[str, ...]) -> RunConfig:
    """The configuration of a run that is to be made in ``folder``."""
    if not asked.labelled or not corpora:
        raise InputError(
            f"{folder} is no run; to make it, give --labelled FILE and --corpus NAME, which `listflow ingest` makes."
        )
    pool = [str(corpus_folder(CORPORA, one)) for one in corpora]
    return Asked(
        task=asked.task, labelled=asked.labelled, unlabelled=pool, test=asked.test, columns=asked.columns,
        set=asked.set, run_dir=str(folder),
    ).to_config()  # fmt: skip


def heads(parent: Path) -> list[Path]:
    """The runs below ``parent`` that begin a lineage."""
    from listflow.pipeline.run.lineage import lineage
    from listflow.pipeline.storage.run_folder import is_run, runs_below

    there = [run.path for run in runs_below(parent) if is_run(run.path)]
    later = {member.folder.name for first in there for member in lineage(first.resolve())[1:]}
    return [run for run in there if run.name not in later]


@contextmanager
def _server(home: Path, port: int, reports: Path) -> Iterator[tuple[Server, bool]]:
    """A server of ``home`` that answers, and whether it was there before."""
    from listflow.flows.server.beside import server_beside, server_there
    from listflow.flows.server.here import is_hosting

    if is_hosting(home):
        yield server_there(home), True
        return
    tell(f"starts a Prefect server in {short(home)}; the first start takes longest")
    with server_beside(home, port, reports) as server:
        yield server, False


@contextmanager
def _only_one(home: Path, wanted: Wanted) -> Iterator[None]:
    """InputError where another process serves under the same name."""
    try:
        with FileLock(home / f".serves-{quote(wanted.name, safe='')}.lock", timeout=0):
            yield
    except Timeout as error:
        raise InputError(
            f"{wanted.name} is served already by another `listflow up` here; give another RUN, or stop that one first."
        ) from error


class _End:
    """What is called when the server has ended: it ends this process in order."""

    has_come = False

    def __call__(self) -> None:
        from prefect.context import refresh_global_settings_context

        self.has_come = True
        # What serves says goodbye to the server, and should not say it again and again to one that is gone.
        os.environ["PREFECT_CLIENT_MAX_RETRIES"] = "0"
        refresh_global_settings_context()
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _ending_in_order(home: Path) -> Iterator[_End]:
    """A block that Ctrl-C, SIGTERM, a terminal that is closed, and a server that ends make end in order.

    That the server has ended is an error, and said in the end.
    """
    end = _End()
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _as_sigterm)
    try:
        with suppress(KeyboardInterrupt, Terminated), heeding_sigterm():
            yield end
    finally:
        if end.has_come:
            log = short(home.resolve() / LOG)
            say(f"the Prefect server has ended ({log} says why); the same command starts all again.")
            sys.stdout.flush()
            # At exit, Prefect would wait for minutes to tell the server what is of no account any more.
            os._exit(UNEXPECTED)


def _check_configured(home: Path) -> None:
    """InputError where commands are told to talk to another server than that of ``home``."""
    from prefect.settings import PREFECT_API_URL

    from listflow.flows.server.here import address_of

    url, own = PREFECT_API_URL.value(), address_of(home)
    if url and not (own and url == f"{own.url}/api"):
        raise InputError(
            f"PREFECT_API_URL names {url}, and `listflow up` is for a server of this folder: unset it, or use "
            "`listflow serve` with that one."
        )


def _configure(server: Server) -> None:
    """From here on commands of this process talk to ``server``, which has the automations."""
    from listflow.flows.server.automations import apply_automations
    from listflow.flows.server.here import use

    use(server.address)
    apply_automations()


def _go_on(plan: Plan) -> None:
    from listflow.flows.run.deployment import serve_run

    if plan.first:
        train(plan.first, as_json=False, goes_on=True)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # A Ctrl-C that finds Prefect's runner half begun is lost; this one waits until it has begun.
        signal.signal(signal.SIGINT, _as_sigterm)
    serve_run(plan.wanted, tell)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what serves has ended, and the server is about to


def _tell_the_rest(end: _End) -> None:
    """Sends what a training has said while the server is there: at exit, Prefect would wait for it for minutes."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in () if end.has_come else (APILogWorker, EventsWorker):
        worker.drain_all(timeout=SECONDS_TO_TELL)


def _as_sigterm(*given: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _screen(server: Server, home: Path, joins: bool, plan: Plan | None, begun: list[Path]) -> Iterator[str]:
    """The lines that say where everything is, and how it goes on."""
    from listflow.flows.server.hosting import CLIENT, PASSWORD
    from listflow.flows.server.reports import PATH

    home, url = home.resolve(), server.address.url
    yield f"the Prefect server of {short(home)} " + ("runs already, and is joined" if joins else "runs")
    yield f"  pages          {url}: the form takes the whole line in {short(home / PASSWORD)}"
    yield f"  reports        {url}{PATH}: the user stands before the colon in that line, the password behind it"
    yield f"  another shell  in this folder needs nothing; elsewhere: . {home / CLIENT}"
    yield from _what_is_served(plan, begun)
    if joins and not plan:
        return
    yield f"  to stop        Ctrl-C here{'; the server stays with the command that started it' if joins else ''}"


def _what_is_served(plan: Plan | None, begun: list[Path]) -> Iterator[str]:
    from listflow.pipeline.storage.run_folder import is_run

    if plan is None:
        if begun:
            yield f"  no run         is served; of {', '.join(map(str, begun))}, name one: listflow up RUN"
        else:
            yield "  no run         is here; make one: listflow up runs/NAME --labelled FILE --corpus NAME"
        return
    wanted = plan.wanted
    when = [f"at '{wanted.cron}'"] if wanted.cron else []
    when += [f"every {wanted.hours:g} hours"] if wanted.hours else []
    when += [f"when corpus {corpus} grows" for corpus in wanted.corpora]
    yield f"  goes on        from {wanted.run}, {' and '.join(when)}"
    yield from (f"  more text      listflow ingest {corpus} FILE" for corpus in wanted.corpora)
    if plan.first:
        state = "is not finished: it is trained now" if is_run(wanted.run) else "is made now"
        yield f"  first          {wanted.run} {state}"
