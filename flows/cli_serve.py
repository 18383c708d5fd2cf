"""``serve``: one process that goes on from a run on a schedule, or when a corpus has grown."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from listflow.flows.cli.options import Verbose
from listflow.flows.cli.run import RunFolder
from listflow.flows.environment import prepare


def serve(
    folder: RunFolder,
    cron: Annotated[str | None, Option(help="When to go on, such as '0 6 * * mon'.")] = None,
    every: Annotated[float | None, Option(help="Or: hours from one run to the next.")] = None,
    corpus: Annotated[
        list[str] | None,
        Option(help="Or: when `listflow ingest` added to this corpus, also before; repeatable."),
    ] = None,
    name: Annotated[str | None, Option(help="Of the deployment. Default: that of the run's folder.")] = None,
    verbose: Verbose = False,
) -> None:
    """Go on from a finished run again and again: on a schedule, or whenever a corpus grows. Needs a Prefect server."""
    prepare(verbose)
    from listflow.flows.run.deployment import Wanted, serve_run

    serve_run(Wanted(folder, cron, every, tuple(corpus or ()), name or folder.resolve().name))
