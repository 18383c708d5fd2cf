"""Labelling by a Prefect work pool: a child flow for every range of shards, on whatever machine has a worker."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.deployments.runner import EntrypointType
from prefect.exceptions import ObjectNotFound
from prefect.serializers import JSONSerializer
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling, State

from listflow.data.errors import InputError
from listflow.flows.labelling.request import LabelRequest, Reason, reason_of
from listflow.flows.labelling.runners import Range, label_told, parameters
from listflow.flows.run.naming import TAGS, tags_of
from listflow.flows.server.client import if_it_answers, server_client
from listflow.flows.server.deployments import how_to_deploy, outdated
from listflow.pipeline.results.labelling import Labelling

SECONDS_BETWEEN_LOOKS = 2.0


# As in flows/run/self_training.py: types and not text as annotations, and no pickle of exceptions.
@flow(
    name="listflow-label-shards", flow_run_name="shards {first} to {last}", persist_result=False,
    result_serializer=JSONSerializer(),
)  # fmt: skip
def label_shards(
    run: str, corpus: str, output: str, first: int, last: int, threads: int = 1, driver: str = ""
) -> int | State:
    """Labels the shards ``first`` to ``last`` of a corpus, save those that are labelled; returns how many it did.

    ``driver`` is the id of the labelling that it works for: it ends with it.
    """
    return label_told(run, corpus, output, first, last, threads, driver)


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
    """Returns when there is a server that knows the deployment, and its workers find the flow; InputError otherwise."""
    name = _full_name(request)
    try:
        with server_client() as client:
            deployment = client.read_deployment_by_name(name)
    except ObjectNotFound as error:
        raise InputError(
            f"the server at {PREFECT_API_URL.value()} has no deployment {name}; make it with "
            f"{how_to_deploy(str(request.deployment), 'POOL')}."
        ) from error
    if words := outdated(label_shards.name, deployment):
        raise InputError(words)


def deploy(name: str, pool: str) -> None:
    """Registers the child flow as deployment ``name`` for the work pool ``pool``, which exists."""
    # By module: workers need listflow installed, and no copy of its code.
    label_shards.to_deployment(
        name, work_pool_name=pool, entrypoint_type=EntrypointType.MODULE_PATH, tags=[*TAGS],
        description="Labels a range of a corpus's shards; resumable.",
    ).apply()  # type: ignore[union-attr]  # fmt: skip


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
    name, tags = _full_name(request), tags_of(work.run)
    run = run_deployment(name, parameters=told, timeout=0, flow_run_name=words, tags=tags)
    assert isinstance(run, FlowRun)  # outside of async code it is no coroutine
    return run.id


def _read(client: SyncPrefectClient, ids: list[UUID]) -> list[FlowRun]:
    return client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)))


def _full_name(request: LabelRequest) -> str:
    return f"{label_shards.name}/{request.deployment}"
