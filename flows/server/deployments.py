"""Deployments that a server knows by the name that a module of listflow had once: a run of theirs can no longer start.

Prefect imports the module of a run before any of our code runs, so the run itself can say nothing but
ModuleNotFoundError. What can be said is said here, by the commands that look at the server.
"""

from __future__ import annotations

from collections.abc import Iterator

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.responses import DeploymentResponse

# Until listflow was one package.
MOVED = {
    "flows.continuing.go_on": "listflow.flows.run.continuation.go_on",
    "flows.label_flow.label_corpus": "listflow.flows.labelling.flow.label_corpus",
    "flows.label_shards_flow.label_shards": "listflow.flows.labelling.work_pool.label_shards",
    "flows.list_flow.self_train": "listflow.flows.run.self_training.self_train",
}


def outdated(flow: str, deployment: DeploymentResponse) -> str | None:
    """One sentence on a deployment of ``flow`` whose module has moved: how to register it again. None for another."""
    now = MOVED.get(deployment.entrypoint or "")
    if now is None:
        return None
    was = f"deployment {flow}/{deployment.name} names {deployment.entrypoint}, which no worker finds any more"
    return f"{was}; {_register(flow, deployment, now)}."


def outdated_deployments() -> list[str]:
    """Such a sentence for each deployment of the server that is not switched off."""
    with get_client(sync_client=True) as client:
        found = ((client.read_flow(one.flow_id).name, one) for one in _read(client) if one.entrypoint in MOVED)
        return [words for flow, one in found if not one.paused and (words := outdated(flow, one))]


def how_to_deploy(name: str, pool: str) -> str:
    """The command that registers the flow of a work pool ``pool`` as deployment ``name``."""
    return f"`python -c \"from listflow.flows.labelling.work_pool import deploy; deploy('{name}', '{pool}')\"`"


def _register(flow: str, deployment: DeploymentResponse, now: str) -> str:
    if flow == "listflow-label-shards":
        return f"register it again with {how_to_deploy(deployment.name, deployment.work_pool_name or 'POOL')}"
    if deployment.work_pool_name is None:
        return "start its `listflow serve` again, which registers it again"
    return f"register it again: write `entrypoint: {now}` into its prefect.yaml, then `prefect deploy --all`"


def _read(client: SyncPrefectClient) -> Iterator[DeploymentResponse]:
    """All deployments of the server, page by page."""
    offset = 0
    while page := client.read_deployments(offset=offset):
        yield from page
        offset += len(page)
