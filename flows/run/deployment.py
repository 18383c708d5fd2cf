"""Deployments of the continuing flow, and of the one that a person starts from a form, served from this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments import run_deployment
from prefect.deployments.runner import EntrypointType
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import TerminationSignal
from prefect.runner import Runner

from listflow.data.errors import InputError
from listflow.data.shards import NAME, read_manifest
from listflow.flows.run.beginning import NewRun, start
from listflow.flows.run.continuation import go_on, has_news
from listflow.flows.run.holder import end_killed
from listflow.flows.run.naming import TAGS, tags_of
from listflow.flows.server.client import check_server
from listflow.flows.server.events import CORPUS_ADDED
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.lineage import lineage
from listflow.pipeline.run.record import load_config
from listflow.pipeline.run.status import status_of
from listflow.pipeline.storage.markdown import plain
from listflow.pipeline.storage.run_folder import runs_below

SECONDS_BETWEEN_LOOKS = 0.1


@dataclass(frozen=True)
class Wanted:
    """When to go on from ``run``: by ``cron``, every so many hours, or when one of ``corpora`` has grown."""

    run: Path
    cron: str | None
    hours: float | None
    corpora: tuple[str, ...]
    name: str


class Serving(Runner):
    """Prefect's own, whose handler of SIGTERM leaves a coroutine that nobody awaits, and the log complains of it."""

    _serving: asyncio.Task[None] | None = None

    async def start(self, *args: Any, **kwargs: Any) -> None:
        """Serves until its task is cancelled, as Ctrl-C does it, which ends the loop in order."""
        self._serving = asyncio.current_task()
        await super().start(*args, **kwargs)

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        """As Ctrl-C, also where that is ignored, as in all that a script starts with ``&``."""
        assert self._serving is not None
        self._serving.get_loop().call_soon_threadsafe(self._end)

    def _end(self) -> None:
        assert self._serving is not None
        if self.started:
            self._serving.cancel()
        else:
            # What is half begun would leave its schedule on.
            self._serving.get_loop().call_later(SECONDS_BETWEEN_LOOKS, self._end)


def serve_run(wanted: Wanted, tell: Callable[[str], None]) -> None:
    """Serves until it is stopped, and tells so when it begins: going on from the run, and a form to start another one.

    InputError for a schedule that cannot be read, no run, or no server.
    """
    options = deployment_of(wanted)
    check_server()
    runner = Serving(name=wanted.name, limit=1)
    runner.add_flow(go_on, **options)
    runner.add_flow(start, **form_of(wanted))
    # Before a run that was killed with its server process, and holds the one place, makes the next one wait.
    newest = lineage(wanted.run.resolve())[-1].folder
    for run in runs_below(newest.parent):  # those of the form, too
        goes_on = f"and goes on with {run.path.name}" if run.path == newest else "and Retry goes on with it"
        end_killed(run.path, f"`listflow serve` was started again, {goes_on}")
    deployment = f"{go_on.name}/{wanted.name}"
    # From here on an event starts a run. One that came before, or that no server heard, is made good.
    if wanted.corpora and has_news(wanted.run):
        run_deployment(deployment, timeout=0)
    tell(f"serves {deployment}, until it is stopped")
    with suppress(KeyboardInterrupt, asyncio.CancelledError, TerminationSignal):
        asyncio.run(runner.start())


def deployment_of(wanted: Wanted) -> dict[str, Any]:
    """What the runner is told: one run at a time, late ones wait, a burst of ingests starts one run."""
    status_of(wanted.run)
    check_wanted(wanted)
    config = load_config(wanted.run)
    _check_corpora(wanted, config)
    triggers = [_trigger(corpus) for corpus in wanted.corpora]
    one_at_a_time = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
    return {
        "name": wanted.name, "parameters": {"run": str(wanted.run.resolve())}, "cron": wanted.cron,
        "interval": timedelta(hours=wanted.hours) if wanted.hours else None, "triggers": triggers,
        "concurrency_limit": one_at_a_time, "tags": tags_of(config),
        # By module: loaded as a file, a flow does not find the types of its parameters.
        "entrypoint_type": EntrypointType.MODULE_PATH,
        "description": f"Goes on from {plain(wanted.run.name)} with rows that are new since.",
    }  # fmt: skip


def form_of(wanted: Wanted) -> dict[str, Any]:
    """What the runner is told of the flow that a person starts: its deployment is called after the other one."""
    return {
        "name": f"{wanted.name}-new", "parameters": {"run": NewRun.like(load_config(wanted.run))}, "tags": [*TAGS],
        "entrypoint_type": EntrypointType.MODULE_PATH,
        "description": "Starts a run from files of the machine that serves: press Run, then Custom run.",
    }  # fmt: skip


def check_wanted(wanted: Wanted) -> None:
    """InputError for a schedule that cannot be read, two of them, or nothing that would ever start a run."""
    try:
        CronSchedule(cron=wanted.cron or "* * * * *")
    except ValueError as error:
        raise InputError(f"--cron '{wanted.cron}' is no schedule; write five fields, such as '0 6 * * mon'.") from error
    if wanted.hours is not None and not wanted.hours > 0:
        raise InputError(f"--every {wanted.hours} is no time between runs; give hours above 0.")
    if wanted.cron and wanted.hours:
        raise InputError("--cron and --every are two schedules; give one.")
    if not (wanted.cron or wanted.hours or wanted.corpora):
        raise InputError("nothing would ever start a run; give --cron, --every or --corpus.")
    for corpus in wanted.corpora:
        if not NAME.fullmatch(corpus):
            raise InputError(f"'{corpus}' is no name of a corpus; use the one that you gave to `listflow ingest`.")


def _check_corpora(wanted: Wanted, config: RunConfig) -> None:
    """InputError for a corpus whose growth would bring the run nothing new."""
    read = {Path(source).name: Path(source) for source in config.data.unlabelled}
    for corpus in wanted.corpora:
        if corpus not in read:
            known = ", ".join(map(plain, read)) or "the demo's texts"
            raise InputError(f"{wanted.run} does not read a corpus '{corpus}', but {known}; correct --corpus.")
        read_manifest(read[corpus])


def _trigger(corpus: str) -> DeploymentEventTrigger:
    return DeploymentEventTrigger(
        expect={CORPUS_ADDED},
        match={"prefect.resource.id": f"listflow.corpus.{corpus}"},
        name=f"corpus {corpus} has grown",
    )
