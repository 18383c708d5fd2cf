"""Which flow run holds a run folder: a note in the folder while it does.

Who ends in order takes the note away before the lock of the folder is free. So a note without a lock is of a process
that was killed, and whose flow run nobody was left to end: it would be shown as Running beside the one that goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from listflow.data.errors import InputError
from listflow.flows.server.client import RETRIES, if_it_answers
from listflow.pipeline.run.status import is_running
from listflow.pipeline.storage.checkpoint import FORMAT, read_json, write_json
from listflow.pipeline.storage.run_folder import RunFolder


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Inside the block, whose process has the lock of ``folder``, a note says which flow run it is of, if of any.

    The flow run of a note that is there already ends as Crashed.
    """
    own, note, killed = FlowRunContext.get(), RunFolder(folder).holder, _noted(folder)
    if own is None or own.flow_run is None:
        yield
        return
    if killed not in {None, own.flow_run.id}:
        _end(killed, f"flow run {own.flow_run.id} goes on with {folder.name}")
    write_json(note, {"format": FORMAT, "flow_run": str(own.flow_run.id), **_place(folder)})
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def end_killed(folder: Path, and_now: str) -> bool:
    """Ends the flow run that was killed while it held ``folder`` as Crashed; whether there was one to look for.

    One that is alive, here or on another machine, has the lock, and is let alone.
    """
    noted = _noted(folder)
    # Looked at again: one that has just ended in order took its note away before it gave the lock back.
    if noted is None or is_running(folder) or _noted(folder) != noted:
        return False
    _end(noted, and_now)
    return True


def _end(killed: UUID, and_now: str) -> None:
    """Nothing where the server does not know it, where it does not answer, and for a flow run that is not going."""
    with if_it_answers(RETRIES), suppress(ObjectNotFound), get_client(sync_client=True) as client:
        state = client.read_flow_run(killed).state
        if state is not None and (state.is_running() or state.is_paused()):
            message = f"Its process was killed, or its machine went away; {and_now}."
            client.set_flow_run_state(killed, Crashed(message=message), force=True)


def _noted(folder: Path) -> UUID | None:
    """The flow run that the note in ``folder`` names; None without one, and in a copy of the folder that it is of."""
    try:
        note = read_json(RunFolder(folder).holder)
        return UUID(note["flow_run"]) if note.items() >= _place(folder).items() else None
    except (InputError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _place(folder: Path) -> dict[str, Any]:
    return {"folder": str(folder.resolve()), "inode": folder.stat().st_ino}
