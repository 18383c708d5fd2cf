"""The command line. Heavy imports wait inside the commands: help and status answer at once."""

from __future__ import annotations

import sys

import typer

from listflow.data.errors import InputError
from listflow.flows.cli.console import BAD_INPUT, UNEXPECTED, begin, fail
from listflow.flows.cli.ingest import ingest
from listflow.flows.cli.label import label
from listflow.flows.cli.options import at_home
from listflow.flows.cli.predict import export, predict
from listflow.flows.cli.pretraining import adapt, subspace
from listflow.flows.cli.results import gc, report, review, status
from listflow.flows.cli.run import plan, resume, run
from listflow.flows.cli.server import automations, serve, server
from listflow.flows.cli.up import up

app = typer.Typer(
    help="Few labels, much unlabelled text, a small classifier: lite self-training as a Prefect flow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    run, resume, status, plan, review, predict, label, export, report, ingest, up, serve, server, automations, gc,
    adapt, subspace,
):  # fmt: skip
    app.command()(at_home(command))


def main() -> None:
    """The entry point: every error becomes one sentence and an exit code; ``--verbose`` shows the traceback."""
    begin()
    try:
        app()
    except InputError as error:
        fail(str(error), BAD_INPUT)
    except Exception as error:
        if "--verbose" in sys.argv:
            raise
        fail(f"{type(error).__name__}: {error} (--verbose shows where)", UNEXPECTED)
