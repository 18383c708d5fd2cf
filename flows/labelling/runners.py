"""Who labels: threads, processes, a dask cluster. Whoever it is, the folder of the labels says what was done."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.futures import PrefectWrappedFuture
from prefect.states import State
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from listflow.data.errors import InputError
from listflow.flows.labelling.request import LabelRequest, Reason, or_refused, reason_of
from listflow.pipeline.results.label_worker import label_range, workers_here
from listflow.pipeline.results.labelling import Labelling

SECONDS_BETWEEN_LOOKS = 0.5
SCHEDULER_SECONDS = 5
# Nobody reads dask's profile of a labelling. It, and a clock that ticks fifty times a second in every process, take a
# twentieth of the cores that label.
SILENT_DASK = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.tick.cycle": "10s",
    "distributed.admin.system-monitor.interval": "10s",
}
Range = tuple[int, int]


def run_tasks(
    work: Labelling, request: LabelRequest, ranges: Sequence[Range], look: Callable[[], None], task: Task[..., Any]
) -> list[Reason]:
    """Runs ``task`` on each range of shards and returns when all have ended: why some failed, if they did.

    ``look`` is called now and then meanwhile.
    """
    with _runner(request) as runner, work.stopping_workers():
        futures = [runner.submit(task, parameters(work, request, a_range)) for a_range in ranges]
        while not all(future.wrapped_future.done() for future in futures):
            time.sleep(SECONDS_BETWEEN_LOOKS)
            look()
        return [reason for future in futures if (reason := _reason(future))]


def check_scheduler(request: LabelRequest) -> None:
    """Returns when the dask scheduler of ``request``, if it names one, answers; InputError otherwise."""
    if request.address is None:
        return
    try:
        asyncio.run(_shake_hands(request.address))
    except (OSError, ValueError, TypeError) as error:  # the last two: of an address that cannot be one
        raise InputError(f"no dask scheduler answers at {request.address}; start it, or correct --address.") from error


def parameters(work: Labelling, request: LabelRequest, a_range: Range) -> dict[str, Any]:
    """What a task or a child flow is told."""
    first, last = a_range
    paths = {"run": request.run, "corpus": request.corpus, "output": request.output}
    return {**paths, "first": first, "last": last, "threads": request.threads, "driver": work.driver}


def label_told(run: str, corpus: str, output: str, first: int, last: int, threads: int, driver: str) -> int | State:
    """What a task or a child flow does with its ``parameters``: how many of the shards it labelled, or a refusal."""
    return or_refused(lambda: label_range(Path(run), Path(corpus), Path(output), first, last, threads, driver))


def local_cluster(workers: int) -> dict[str, Any]:
    """What a dask cluster on this machine is made with."""
    # Loopback only: a cluster unpickles what it is sent. No limit of memory, as dask would kill workers at it.
    local = {"n_workers": workers, "threads_per_worker": 1, "host": "127.0.0.1"}
    return {**local, "dashboard_address": "127.0.0.1:0", "memory_limit": None}


def end_with_parent() -> None:
    """For a process of a pool: ends it when the process that started it is gone, which nobody else would."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


async def _shake_hands(address: str) -> None:
    from distributed.comm import connect
    from distributed.security import Security

    comm = await connect(address, timeout=SCHEDULER_SECONDS, **Security().get_connection_args("client"))
    await comm.close()


def _runner(request: LabelRequest) -> TaskRunner[Any]:
    workers = request.workers or workers_here(Path(request.run))
    if request.runner == "threads":
        return ThreadPoolTaskRunner(max_workers=workers)
    if request.runner == "processes":
        return ProcessPoolTaskRunner(max_workers=workers, initializer=end_with_parent)
    from dask import config
    from prefect_dask import DaskTaskRunner

    if request.address is not None:
        return DaskTaskRunner(address=request.address)
    config.set(SILENT_DASK)
    return DaskTaskRunner(cluster_kwargs=local_cluster(workers))


def _reason(future: PrefectWrappedFuture[Any, Any]) -> Reason | None:
    error = future.wrapped_future.exception()
    if error is not None:
        return Reason(f"{type(error).__name__}: {error}")
    return reason_of(future.wrapped_future.result())
