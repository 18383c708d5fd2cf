"""``label``: a whole corpus, labelled by the final model of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.console import Console
from typer import Argument, Option

from listflow.data.files import short
from listflow.flows.cli.console import (
    UNEXPECTED,
    Count,
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
from listflow.flows.cli.options import AsJson, RunPath, Verbose

if TYPE_CHECKING:
    from listflow.flows.labelling.request import LabelRequest
    from listflow.pipeline.results.labelling import Standing

AGAIN = "what is labelled is kept; the same command again labels what is left."


def label(
    folder: RunPath,
    corpus: Annotated[Path, Argument(help="The folder of a corpus that `listflow ingest` made.")],
    output: Annotated[Path, Option(help="The folder of the labels: a Parquet data set, one file a shard.")],
    workers: Annotated[
        int | None, Option(min=1, max=1000, help="How many work at a time. Default: one a core here, or 1 with a GPU.")
    ] = None,
    runner: Annotated[
        Literal["threads", "processes", "dask", "pool"], Option(help="Who they are; see docs/scale.md.")
    ] = "threads",
    threads: Annotated[
        int, Option(min=1, max=1024, help="CPU threads of each; another number changes the last digits.")
    ] = 1,
    int8: Annotated[bool, Option("--int8", help="Multiply in 8 bits: faster, and some labels may differ.")] = False,
    address: Annotated[str | None, Option(help="A dask scheduler; without it, --runner dask starts one here.")] = None,
    pool_deployment: Annotated[
        str | None, Option(metavar="NAME", help="With --runner pool: a deployment of listflow-label-shards.")
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Label every row of a corpus: all of it, what a killed labelling left, or what is new since."""
    prepare(verbose)
    from listflow.flows.labelling.request import LabelRequest, check_request
    from listflow.flows.labelling.runners import check_scheduler
    from listflow.pipeline.results.labelling import Labelling

    run, corpus, output = (path.resolve() for path in (folder, corpus, output))
    request = LabelRequest(
        run=str(run), corpus=str(corpus), output=str(output), runner=runner, workers=workers, threads=threads,
        int8=int8, address=address, deployment=pool_deployment,
    )  # fmt: skip
    # Bad input should not have to wait until Prefect is up.
    check_request(request)
    Labelling.open(run, corpus, output, int8)
    check_scheduler(request)
    console = plain_console(stderr=as_json)
    facts = _follow(request, console)
    _show(facts, output, console)
    if as_json:
        print_json(facts, is_ascii=False)


def _follow(request: LabelRequest, console: Console) -> dict[str, Any]:
    """What the flow found. Ends the process, saying how to go on, when it is interrupted or something is left."""
    from listflow.flows.labelling.flow import Unlabelled, label_corpus, told
    from listflow.flows.run.cancellation import Stopped
    from listflow.flows.server.client import check_server, ensure_server

    try:
        with heeding_sigterm(), Count(console, "start Prefect") as count, told(partial(_shown, count)):
            # A temporary server has no work pool.
            check_server() if request.runner == "pool" else ensure_server()
            with _known_to_workers():
                return label_corpus(request)
    except (KeyboardInterrupt, Stopped, Terminated) as stopped:
        interrupted(stopped, AGAIN)
    except Unlabelled as error:
        fail(f"{error}; {AGAIN}", UNEXPECTED)


@contextmanager
def _known_to_workers() -> Iterator[None]:
    """Processes that the flow starts talk to its server; without an address they would each start one."""
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: PREFECT_API_URL.value() or SubprocessASGIServer().api_url}):
        yield


def _shown(count: Count, found: Standing) -> None:
    count.show(found.rows, found.all_rows, "rows", f"in {found.shards:,} of {found.all_shards:,} shards")


def _show(facts: dict[str, Any], output: Path, console: Console) -> None:
    speed = f"; {facts['rows_now']:,} of them now, {facts['rows_a_second']:,.0f} a second" if facts["rows_now"] else ""
    done = f"{counted(facts['rows'], 'row')} labelled in {counted(facts['shards'], 'file')}"
    console.print(f"{done}{speed}", highlight=False)
    for name, count in sorted(facts["per_class"].items(), key=lambda item: -item[1])[:20]:
        console.print(f"{count:>12,}  {name}", highlight=False, markup=False)
    print_line(console, f'read it with: pandas.read_parquet("{short(output)}")')
