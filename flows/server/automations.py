"""Retries: what a Prefect server does by itself about runs of listflow that were killed.

Declared here, brought about by one command, `listflow automations`. A silent run is called crashed, and a crashed run
of a deployment is started again; it goes on from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from listflow.flows.server.events import CORPUS_ADDED

OURS = "listflow: "
HEARTBEAT, CRASHED = "prefect.flow-run.heartbeat", "prefect.flow-run.Crashed"
ENDED = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed")}
FLOW_RUN = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
OUR_FLOW = ResourceSpecification({"prefect.resource.role": "flow", "prefect.resource.name": "listflow*"})
# Of the flow that goes on: a range of shards is given out again by the labelling that it belongs to.
GO_ON = ResourceSpecification({"prefect.resource.role": "flow", "prefect.resource.name": "listflow-continue"})
ANY_DEPLOYMENT = ResourceSpecification({"prefect.resource.role": "deployment"})

RESUME = AutomationCore(
    name=f"{OURS}start a crashed run again",
    description="Once an hour at most, so that a run that always crashes stays crashed. It goes on where it was.",
    tags=["listflow"],
    trigger=EventTrigger(
        expect={CRASHED},
        match=FLOW_RUN,
        match_related=[GO_ON, ANY_DEPLOYMENT],
        for_each={"related:deployment:prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
        # It fires at the first crash, and not again before this time has passed.
        within=timedelta(hours=1),
    ),
    actions=[RunDeployment(source="inferred")],
)
SILENT = AutomationCore(
    name=f"{OURS}a silent run has crashed",
    description="Its machine went away, and nobody was left to say so: no heartbeat for nine minutes.",
    tags=["listflow"],
    trigger=EventTrigger(
        after={HEARTBEAT},
        expect={HEARTBEAT, *ENDED},
        match=FLOW_RUN,
        match_related=OUR_FLOW,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=540),
    ),
    actions=[ChangeFlowRunState(state=StateType.CRASHED, message="no heartbeat for nine minutes")],
)
DECLARED = (RESUME, SILENT)

Fate = Literal["created", "updated", "left as it was", "removed", "of a deployment"]


@dataclass(frozen=True)
class Found:
    """An automation of ours, and what became of it; ``enabled`` as a person may have set it."""

    name: str
    words: str
    fate: Fate
    enabled: bool


def apply_automations(declared: tuple[AutomationCore, ...] = DECLARED) -> list[Found]:
    """Makes the server's automations of ours what is ``declared``; the same again changes nothing.

    One that a person has switched off stays off. Those of deployments are told, and left to ``listflow serve``.
    """
    with get_client(sync_client=True) as client:
        there = list(_read(client))
        found = [_bring_about(client, wanted, there) for wanted in declared]
        names = {wanted.name for wanted in declared}
        former = [one for one in there if one.name.startswith(OURS) and one.name not in names]
        return [*found, *_remove(client, former), *map(_of_deployment, filter(_awaits_corpus, there))]


def remove_automations() -> list[Found]:
    """Takes every automation of ours from the server, and no other; those of deployments go with their deployments."""
    with get_client(sync_client=True) as client:
        there = list(_read(client))
        ours = [one for one in there if one.name.startswith(OURS)]
        return [*_remove(client, ours), *map(_of_deployment, filter(_awaits_corpus, there))]


def _read(client: SyncPrefectClient) -> Iterator[Automation]:
    """All automations of the server, page by page."""
    offset = 0
    while page := client.read_automations(offset=offset):
        yield from page
        offset += len(page)


def _bring_about(client: SyncPrefectClient, wanted: AutomationCore, there: list[Automation]) -> Found:
    same_name = [one for one in there if one.name == wanted.name]
    if not same_name:
        client.create_automation(wanted)
        return Found(wanted.name, wanted.description, "created", wanted.enabled)
    first, *doubles = same_name
    for double in doubles:
        client.delete_automation(double.id)
    kept = wanted.model_copy(update={"enabled": first.enabled})
    fate: Fate = "left as it was"
    if _essence(first) != _essence(wanted):
        # What is set is sent, and who it belongs to may not be.
        client.update_automation(first.id, AutomationCore(**kept.model_dump(exclude={"owner_resource"})))
        fate = "updated"
    return Found(wanted.name, wanted.description, fate, first.enabled)


def _remove(client: SyncPrefectClient, automations: list[Automation]) -> list[Found]:
    for one in automations:
        client.delete_automation(one.id)
    return [Found(one.name, one.description, "removed", one.enabled) for one in automations]


def _essence(automation: AutomationCore) -> dict[str, Any]:
    """What it does; not who it belongs to, and not whether it is switched on."""
    return AutomationCore(**automation.model_dump()).model_dump(exclude={"enabled", "owner_resource"})


def _awaits_corpus(automation: Automation) -> bool:
    return isinstance(automation.trigger, EventTrigger) and CORPUS_ADDED in automation.trigger.expect


def _of_deployment(automation: Automation) -> Found:
    return Found(automation.name, "Starts a run.", "of a deployment", automation.enabled)
