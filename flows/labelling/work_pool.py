"""Labelling by a Prefect work pool: a child flow for every range of shards, on whatever machine has a worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.deployments.runner import EntrypointType
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling

from listflow.data.errors import InputError
from listflow.flows.away import if_it_answers
from listflow.flows.label_reason import Reason, reason_of
from listflow.flows.label_shards_flow import label_shards
from listflow.flows.labelling.request import LabelRequest
from listflow.flows.labelling.runners import Range, parameters
from listflow.flows.server.client import server_client
from listflow.pipeline.results.labelling import Labelling

SECONDS_BETWEEN_LOOKS = 2.0


def run_children(
    work: Labelling, request: LabelRequest, ranges: Sequence[Range], look: Callable[[], None]
) -> list[Reason]:
    """Runs the deployment on each range of shards and returns when all have ended: why some failed, if they did."""
    started: list[UUID] = []
    with get_client(sync_client=True) as client, work.stopping_workers(), _cancelling(client, started):
        for a_range in ranges:
            started.append(_start(work, request, a_range))
        while True:
            found = _read(client, started)
            if all(run.state and run.state.is_final() for run in found):
                break
            time.sleep(SECONDS_BETWEEN_LOOKS)
            look()
    return [reason for run in found if run.state and (reason := reason_of(run.state))]


def check_pool(request: LabelRequest) -> None:
    """Returns when there is a server that knows the deployment; InputError otherwise."""
    name = _full_name(request)
    try:
        with server_client() as client:
            client.read_deployment_by_name(name)
    except ObjectNotFound as error:
        raise InputError(
            f"the server at {PREFECT_API_URL.value()} has no deployment {name}; make it with "
            "`python -c \"from listflow.flows.labelling.work_pool import deploy; "
            f"deploy('{request.deployment}', 'POOL')\"`."
        ) from error


def deploy(name: str, pool: str) -> None:
    """Registers the child flow as deployment ``name`` for the work pool ``pool``, which exists."""
    # By module: workers need listflow installed, and no copy of its code.
    label_shards.to_deployment(
        name, work_pool_name=pool, entrypoint_type=EntrypointType.MODULE_PATH, tags=["listflow"],
        description="Labels a range of a corpus's shards; resumable.",
    ).apply()  # type: ignore[union-attr]  # fmt: skip


def _full_name(request: LabelRequest) -> str:
    return f"{label_shards.name}/{request.deployment}"


@contextmanager
def _cancelling(client: SyncPrefectClient, started: list[UUID]) -> Iterator[None]:
    """Whatever ends the block other than its end cancels what was ``started``: a child may wait for a machine."""
    try:
        yield
    except BaseException:
        with if_it_answers():
            for one in started:
                # One that has ended stays as it is; one that somebody deleted is none.
                with suppress(ObjectNotFound):
                    client.set_flow_run_state(one, Cancelling())
        raise


def _start(work: Labelling, request: LabelRequest, a_range: Range) -> UUID:
    words = "label shards {} to {}".format(*a_range)
    told = parameters(work, request, a_range)
    run = run_deployment(_full_name(request), parameters=told, timeout=0, flow_run_name=words)
    assert isinstance(run, FlowRun)  # outside of async code it is no coroutine
    return run.id


def _read(client: SyncPrefectClient, ids: list[UUID]) -> list[FlowRun]:
    return client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)))
