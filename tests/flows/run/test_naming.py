"""Names and tags of flow runs: made-up names give way, typed ones stay, and all runs of a kind can be filtered by."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Result
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.utilities.names import generate_slug
from tiny import sentences, tiny_overlay, write_jsonl

from listflow.data.corpora.ingest import ingest
from listflow.data.task import Columns
from listflow.flows.run.deployment import Wanted, deployment_of
from listflow.flows.run.naming import introduce, name_beside, tags_of, title_of
from listflow.pipeline.run.lineage import continued
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.record import load_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.training.rounds import prompt_tune

pytest_plugins = ["flow_fixtures"]
TITLE = "tickets-003: +240 rows of march"


def test_a_name_that_a_server_made_up_gives_way() -> None:
    assert {name_beside(generate_slug(2), TITLE) for _ in range(200)} == {TITLE}
    assert name_beside("", TITLE) == TITLE


@pytest.mark.parametrize("typed", ["my try", "March", "weekly-run", "new-labels", "big-dog-2", "first"])
def test_a_name_that_a_person_typed_is_kept(typed: str) -> None:
    assert name_beside(typed, TITLE) == typed


@pytest.mark.parametrize("proposed", ["chi6-garon-f", "tau-xculoc", "alpha-canis-majoris-nebula", "beta-test"])
def test_a_name_that_the_form_proposed_stays_in_front(proposed: str) -> None:
    """A person may have typed it: no list of ours tells."""
    assert name_beside(proposed, TITLE) == f"{proposed}, {TITLE}"


def test_nothing_happens_outside_of_a_flow_run() -> None:
    introduce(TITLE)


def test_a_flow_run_gets_its_name_and_keeps_its_tags(server: None) -> None:
    @flow
    def named(title: str) -> None:
        introduce(title, build_config("fast"))
        introduce(TITLE)

    state = named.with_options(persist_result=False)("go on", return_state=True)
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(state.state_details.flow_run_id)
    assert (found.name, sorted(found.tags)) == (TITLE, ["list", "listflow", "verbalizer"])


@pytest.fixture(scope="module")
def first(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a corpus of one file, in a folder that is called as the corpus is."""
    home = tmp_path_factory.mktemp("names")
    grow(home / "tickets", "january", 60, 2)
    overlay = tiny_overlay(tiny_files | {"unlabelled": home / "tickets"}, home / "runs" / "tickets")
    self_train(build_config("fast", overlay, {"rounds": {"count": 1}}))
    return home / "runs" / "tickets"


def grow(corpus: Path, file: str, rows: int, seed: int) -> None:
    ingest(
        corpus, [str(write_jsonl(corpus.parent / f"{file}.jsonl", sentences(rows, seed, labelled=False)))], Columns()
    )


def test_a_run_that_goes_on_is_called_after_what_is_new(first: Path, tmp_path: Path) -> None:
    corpus = first.parents[1] / "tickets"
    with open_run(load_config(first)) as run:
        assert title_of(run) == "task, tickets"
    grow(corpus, "february", 20, 5)
    with open_run(continued(first, first.with_name("tickets-002"))) as run:
        assert title_of(run) == "tickets-002: +20 rows of february"
        prompt_tune(run)
    grow(corpus, "march", 10, 6)
    with open_run(load_config(first.with_name("tickets-002"))) as run:
        assert title_of(run) == "tickets-002: +20 rows of february, resumed"
    grow(corpus, "april", 10, 7)
    with open_run(continued(first, tmp_path / "spring")) as run:
        assert title_of(run) == "spring: +40 rows of tickets (february and 2 more)"


def test_all_flow_runs_of_a_model_have_the_same_tags(finished: tuple[Path, Result]) -> None:
    folder, _ = finished
    tags = tags_of(load_config(folder))
    assert tags == ["listflow", "list", "verbalizer"]
    assert deployment_of(Wanted(folder, "0 6 * * mon", None, (), "weekly"))["tags"] == tags
    with get_client(sync_client=True) as client:
        runs = [run for run in client.read_flow_runs() if run.name == f"task, {folder.name}"]
    assert [sorted(run.tags) for run in runs] == [sorted(tags)] * len(runs) != []
