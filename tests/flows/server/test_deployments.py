"""A deployment that names a module by its former name is found before a run of it crashes, and told how to mend it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from commands import Cli
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from prefect.flows import load_flow_from_entrypoint
from tiny import sentences, tiny_overlay, write_jsonl

from listflow.data.corpora.ingest import ingest
from listflow.data.errors import InputError
from listflow.data.task import Columns
from listflow.flows.labelling.request import LabelRequest
from listflow.flows.labelling.work_pool import check_pool, deploy, label_shards
from listflow.flows.run.continuation import go_on
from listflow.flows.server.deployments import MOVED
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train

pytest_plugins = ["flow_fixtures"]
Register = Callable[[Flow, str, str, str | None], None]  # type: ignore[type-arg]
FORMER = {new: former for former, new in MOVED.items()}


@pytest.fixture
def register(server: None) -> Iterator[Register]:
    """Registers a flow under a name, an entrypoint and a work pool; deployments and automations go after the test."""
    made = []
    with get_client(sync_client=True) as client:
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name="boxes", type="process"))

        def one(flow: Flow, name: str, entrypoint: str, pool: str | None) -> None:  # type: ignore[type-arg]
            made.append(
                client.create_deployment(
                    client.create_flow(flow), name, entrypoint=entrypoint, work_pool_name=pool, paused=name == "over"
                )
            )

        yield one
        for deployment in made:
            client.delete_deployment(deployment)
        for automation in client.read_automations():
            client.delete_automation(automation.id)


def test_every_flow_is_found_where_it_is_said_to_be_now() -> None:
    for now in FORMER:
        assert load_flow_from_entrypoint(now).name.startswith("listflow")


def test_a_pool_whose_workers_would_not_find_the_flow_is_refused(
    cli: Cli, register: Register, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    run, corpus = tmp_path / "run", tmp_path / "tickets"
    self_train(build_config("fast", tiny_overlay(tiny_files, run), {"rounds": {"count": 1}}))
    ingest(corpus, [str(write_jsonl(tmp_path / "rows.jsonl", sentences(3, 2, labelled=False)))], Columns())
    former = "flows.label_shards_flow.label_shards"
    register(label_shards, "old", former, "boxes")
    request, out = LabelRequest(run="", corpus="", output="", runner="pool", deployment="old"), tmp_path / "out"
    with pytest.raises(InputError, match="which no worker finds any more"):
        check_pool(request)
    refused = cli("label", run, corpus, "--runner=pool", "--pool-deployment=old", f"--output={out}")
    assert refused.returncode == 2
    assert refused.stderr == (
        f"listflow: deployment listflow-label-shards/old names {former}, which no worker finds any more; register it "
        "again with `python -c \"from listflow.flows.labelling.work_pool import deploy; deploy('old', 'boxes')\"`.\n"
    )
    assert not list(out.rglob("*"))
    deploy("old", "boxes")  # as it says
    check_pool(request)


def test_automations_names_deployments_that_would_only_crash(cli: Cli, register: Register) -> None:
    now = "listflow.flows.run.continuation.go_on"
    former = FORMER[now]
    register(go_on, "tickets", former, "boxes")
    register(go_on, "served", former, None)
    register(go_on, "over", former, None)  # its serve was stopped: nothing starts a run of it
    register(go_on, "fine", now, "boxes")
    register(label_shards, "gpus", FORMER["listflow.flows.labelling.work_pool.label_shards"], "boxes")
    told = cli("automations", "--json")
    assert told.returncode == 0, told.stderr
    assert {found["fate"] for found in json.loads(told.stdout)} == {"created"}
    said = sorted(line for line in told.stderr.splitlines() if line.startswith("listflow: "))
    start = "listflow: deployment listflow-continue"
    assert said == [
        f"{start}/served names {former}, which no worker finds any more; "
        "start its `listflow serve` again, which registers it again.",
        f"{start}/tickets names {former}, which no worker finds any more; "
        f"register it again: write `entrypoint: {now}` into its prefect.yaml, then `prefect deploy --all`.",
        "listflow: deployment listflow-label-shards/gpus names flows.label_shards_flow.label_shards, which no worker "
        "finds any more; register it again with "
        "`python -c \"from listflow.flows.labelling.work_pool import deploy; deploy('gpus', 'boxes')\"`.",
    ]
