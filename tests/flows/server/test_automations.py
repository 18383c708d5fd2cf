"""Automations: brought about once, changed where they differ, and nobody else's are touched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from commands import Cli
from prefect.client.orchestration import get_client
from prefect.events.actions import DoNothing
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import Resource

from listflow.flows.labelling.flow import label_corpus
from listflow.flows.labelling.work_pool import label_shards
from listflow.flows.run.beginning import start
from listflow.flows.run.continuation import go_on
from listflow.flows.run.self_training import self_train
from listflow.flows.server.automations import DECLARED, RESUME, SILENT, apply_automations, remove_automations

pytest_plugins = ["flow_fixtures"]
OTHER = AutomationCore(
    name="of somebody else",
    trigger=EventTrigger(expect={"a.thing.happened"}, posture=Posture.Reactive),
    actions=[DoNothing()],
)


def there() -> dict[str, Automation]:
    with get_client(sync_client=True) as client:
        return {one.name: one for one in client.read_automations()}


@pytest.fixture
def clean(server: None) -> Iterator[None]:
    """No automation before a test, and none after it."""
    yield
    with get_client(sync_client=True) as client:
        for one in there().values():
            client.delete_automation(one.id)


@pytest.mark.usefixtures("clean")
def test_the_same_again_changes_nothing() -> None:
    assert [found.fate for found in apply_automations()] == ["created"] * len(DECLARED)
    before = there()
    assert [found.fate for found in apply_automations()] == ["left as it was"] * len(DECLARED)
    assert there() == before
    assert set(before) == {automation.name for automation in DECLARED}


@pytest.mark.usefixtures("clean")
def test_what_differs_is_updated_and_what_is_no_longer_declared_goes() -> None:
    apply_automations()
    silent = there()[SILENT.name]
    trigger = SILENT.trigger.model_copy(update={"within": timedelta(seconds=1200)})
    (updated, removed) = apply_automations((SILENT.model_copy(update={"trigger": trigger}),))
    assert (updated.name, updated.fate) == (SILENT.name, "updated")
    assert (removed.name, removed.fate) == (RESUME.name, "removed")
    (now,) = there().values()
    assert (now.id, now.trigger.within) == (silent.id, timedelta(seconds=1200))  # type: ignore[union-attr]


@pytest.mark.usefixtures("clean")
def test_one_that_a_person_has_switched_off_stays_off() -> None:
    apply_automations()
    with get_client(sync_client=True) as client:
        client.pause_automation(there()[RESUME.name].id)
    assert {found.name: found.fate for found in apply_automations()}[RESUME.name] == "left as it was"
    changed = RESUME.model_copy(update={"description": "another"})
    assert apply_automations((changed, SILENT))[0].fate == "updated"
    assert (there()[RESUME.name].enabled, there()[RESUME.name].description) == (False, "another")


@pytest.mark.usefixtures("clean")
def test_nobody_elses_is_touched() -> None:
    with get_client(sync_client=True) as client:
        client.create_automation(OTHER)
    apply_automations()
    assert OTHER.name in there()
    assert {found.fate for found in remove_automations()} == {"removed"}
    assert set(there()) == {OTHER.name}


def test_only_a_run_that_goes_on_is_started_again() -> None:
    flow, _ = RESUME.trigger.match_related  # type: ignore[union-attr]
    wanted = {
        one.name: flow.matches(of_flow(one.name)) for one in (go_on, start, self_train, label_corpus, label_shards)
    }
    assert [name for name, is_matched in wanted.items() if is_matched] == [go_on.name]


def of_flow(name: str) -> Resource:
    """What an event says of the flow of its run."""
    facts = {"prefect.resource.id": "prefect.flow.1", "prefect.resource.role": "flow", "prefect.resource.name": name}
    return Resource(facts)


@pytest.mark.usefixtures("clean")
def test_the_command_says_what_it_did(cli: Cli) -> None:
    first = cli("automations", "--json")
    assert first.returncode == 0, first.stderr
    assert {found["fate"] for found in json.loads(first.stdout)} == {"created"}
    assert "start a crashed run again" in first.stderr
    assert "removed" in cli("automations", "--remove").stdout
    assert "no automation of listflow" in cli("automations", "--remove").stdout
