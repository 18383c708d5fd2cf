"""The note in a run folder: a flow run that was killed ends when another goes on, and one that is alive does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.serializers import JSONSerializer
from prefect.states import Completed, Paused, Running
from tiny import tiny_overlay

from listflow.flows.run.holder import end_killed, holding
from listflow.flows.run.self_training import self_train
from listflow.flows.run.session import watched_by
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.run import Progress, Run
from listflow.pipeline.storage.checkpoint import single_writer, write_json

pytest_plugins = ["flow_fixtures"]


@flow(persist_result=False)
def going() -> None:
    """A flow run of which a test says how it is."""


def flow_run_in(state: State[Any]) -> UUID:
    with get_client(sync_client=True) as client:
        return client.create_flow_run(going, name="the one before", state=state).id


def state_of(flow_run: UUID) -> State[Any]:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(flow_run).state
    assert state is not None
    return state


@pytest.fixture
def folder(server: None, tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def leave_note(folder: Path, flow_run: UUID) -> Path:
    """As a killed process leaves it."""
    note = folder / ".flow-run.json"
    place = {"folder": str(folder), "inode": folder.stat().st_ino}
    write_json(note, {"format": 1, "flow_run": str(flow_run), **place})
    return note


# Prefect pickles what a failed flow raised if it is not told otherwise.
@flow(persist_result=False, result_serializer=JSONSerializer())
def hold(folder: Path, meanwhile: Callable[[], None]) -> None:
    with single_writer(folder), holding(folder):
        meanwhile()


def test_a_note_is_there_while_a_flow_run_holds_the_folder(folder: Path) -> None:
    seen: list[Any] = []
    note = folder / ".flow-run.json"
    state = hold(folder, lambda: seen.append(json.loads(note.read_text())), return_state=True)
    assert seen[0]["flow_run"] == str(state.state_details.flow_run_id)
    assert not note.exists()


def test_a_run_is_held_from_before_its_texts_are_read(folder: Path, tiny_files: dict[str, Path]) -> None:
    seen: dict[str, bool] = {}

    class Look:
        def opened(self, run: Run) -> None: ...

        def moved(self, progress: Progress) -> None:
            seen[progress.phase] = (folder / ".flow-run.json").exists()

    with watched_by(Look()):
        self_train(build_config("fast", tiny_overlay(tiny_files, folder)))
    assert {"tokenise", "predict"} <= seen.keys()
    assert all(seen.values())
    assert not (folder / ".flow-run.json").exists()


def test_one_that_fails_takes_its_note_away(folder: Path) -> None:
    def fail() -> None:
        raise RuntimeError("of a test")

    assert hold(folder, fail, return_state=True).is_failed()
    assert [path.name for path in folder.iterdir()] == [".lock"]


@pytest.mark.parametrize("was", [Running(), Paused(timeout_seconds=3600)], ids=["running", "paused"])
def test_the_one_that_was_killed_ends_and_says_who_went_on(folder: Path, was: State[Any]) -> None:
    killed = flow_run_in(was)
    note = leave_note(folder, killed)
    on = hold(folder, lambda: None, return_state=True).state_details.flow_run_id
    found = state_of(killed)
    assert found.is_crashed()
    assert found.message == (
        f"Its process was killed, or its machine went away; flow run {on} goes on with {folder.name}."
    )
    assert not note.exists()


def test_one_that_has_ended_stays_as_it_ended(folder: Path) -> None:
    done = flow_run_in(Completed())
    leave_note(folder, done)
    hold(folder, lambda: None)
    assert state_of(done).is_completed()


def test_without_a_flow_run_of_its_own_it_leaves_no_note(folder: Path) -> None:
    with single_writer(folder), holding(folder):
        assert [path.name for path in folder.iterdir()] == [".lock"]


def test_before_it_goes_on_a_server_process_ends_the_killed_one(folder: Path) -> None:
    killed = flow_run_in(Running())
    leave_note(folder, killed)
    assert end_killed(folder, "somebody goes on")
    assert state_of(killed).message == "Its process was killed, or its machine went away; somebody goes on."


def test_one_that_is_alive_is_let_alone(folder: Path) -> None:
    alive = flow_run_in(Running())
    leave_note(folder, alive)
    with single_writer(folder):
        assert not end_killed(folder, "nobody goes on")
    assert state_of(alive).is_running()


def test_a_copy_of_a_folder_ends_nothing(folder: Path, tmp_path: Path) -> None:
    alive = flow_run_in(Running())
    leave_note(folder, alive)
    copy = shutil.copytree(folder, tmp_path / "copy")
    hold(copy, lambda: None)
    shutil.move(folder, tmp_path / "away")
    shutil.copytree(tmp_path / "away", folder)
    hold(folder, lambda: None)
    assert state_of(alive).is_running()


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1, "flow_run": 3}', "[1]", '{"format": 99}'])
def test_a_damaged_note_and_another_server_change_nothing(folder: Path, text: str) -> None:
    (folder / ".flow-run.json").write_text(text)
    hold(folder, lambda: None)
    assert not (folder / ".flow-run.json").exists()
    leave_note(folder, uuid4())  # which this server does not know
    hold(folder, lambda: None)
    assert not (folder / ".flow-run.json").exists()
