"""Heeding a flow run that is cancelled in the UI while it runs in this process.

A runner or worker ends the process of a run that it started. Nobody does so for ``listflow run``: it has to ask.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import Abort
from prefect.states import Cancelled

from listflow.flows.server.client import if_it_answers
from listflow.pipeline.run.run import Progress, Run

SECONDS_BETWEEN_QUESTIONS = 2.0
MANAGED = "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS"  # "false" where a runner or worker will end the process


class RunCancelled(BaseException):
    """Someone cancelled this flow run."""


class Stopped(Abort):
    """Ends a flow whose ``state`` the server knows already."""

    def __init__(self, state: State) -> None:
        super().__init__(state.message)
        self.state = state


class Heed:
    """A watcher that raises ``RunCancelled`` at the next step or batch after ``cancelled`` is set."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def opened(self, run: Run) -> None:
        """Called once, when all inputs are checked."""
        self.check()

    def moved(self, progress: Progress) -> None:
        """Called after every step."""
        self.check()

    def check(self) -> None:
        """Raises ``RunCancelled`` if need be."""
        if self.cancelled.is_set():
            raise RunCancelled


@contextmanager
def cancellable(heed: Heed, how_to_go_on: str = "`listflow resume` goes on from the last step.") -> Iterator[None]:
    """Tells ``heed`` when the flow run of this block is cancelled; it then ends as Cancelled, by ``Stopped``.

    A thread asks, so that a server which is slow or away holds nobody up.
    """
    flow_run = heeded_run()
    if flow_run is None:
        yield
        return
    over = threading.Event()
    threading.Thread(target=copy_context().run, args=(_ask, flow_run, heed.cancelled, over), daemon=True).start()
    try:
        yield
        if is_cancelled(flow_run):
            raise RunCancelled
        heed.check()
    except RunCancelled:
        raise Stopped(_set_cancelled(flow_run, f"Cancelled; {how_to_go_on}")) from None
    finally:
        over.set()


def heeded_run() -> UUID | None:
    """The flow run of this process where nobody else would end it; None outside of one, and in a runner or worker."""
    here = FlowRunContext.get()
    if here is None or here.flow_run is None or os.environ.get(MANAGED) == "false":
        return None
    return here.flow_run.id


def is_cancelled(flow_run: UUID) -> bool:
    """Whether someone cancelled ``flow_run``; False too while the server does not answer."""
    with get_client(sync_client=True) as client:
        return _says_cancelled(client, flow_run)


def _ask(flow_run: UUID, cancelled: threading.Event, over: threading.Event) -> None:
    # One client for all questions: making one takes twenty times the work of asking.
    with get_client(sync_client=True) as client:
        while not over.wait(SECONDS_BETWEEN_QUESTIONS) and not cancelled.is_set():
            if _says_cancelled(client, flow_run):
                cancelled.set()


def _says_cancelled(client: SyncPrefectClient, flow_run: UUID) -> bool:
    with if_it_answers():
        state = client.read_flow_run(flow_run).state
        return state is not None and (state.is_cancelling() or state.is_cancelled())
    return False


def _set_cancelled(flow_run: UUID, message: str) -> State:
    state: State = Cancelled(message=message)
    with suppress(HTTPError), get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run, state, force=True)
    return state
