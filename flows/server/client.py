"""The Prefect server that a command talks to: the configured one, or a temporary one of its own.

One that is away for a while must not hold up or end a training.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

from httpx import HTTPError, HTTPStatusError, TransportError
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from listflow.data.errors import InputError

HOW_TO_START = "start one with `listflow server`, then `. .server/client.env`"
RETRIES = 2  # a busy server gets another chance to keep a table
SECONDS_BETWEEN_UPDATES = 5.0


def ensure_server() -> None:
    """Where no server is configured, starts Prefect's temporary one, out of the reach of Ctrl-C.

    InputError where it does not start, and where the configured one is away or refuses this client.
    """
    if PREFECT_API_URL.value():
        check_server()
        return
    # A command that asks another server should not wait for this import.
    from listflow.flows.server.temporary import start_temporary_server

    start_temporary_server()


def check_server() -> None:
    """InputError where no server is configured, none answers, or it refuses this client."""
    with server_client() as client:
        client.api_version()


@contextmanager
def server_client(**settings: Any) -> Iterator[SyncPrefectClient]:
    """A client of the configured server, with ``settings`` of httpx.

    InputError where none is configured, or where it does not answer or refuses what the block asks.
    """
    url = PREFECT_API_URL.value()
    if not url:
        raise InputError(f"this needs a Prefect server, and PREFECT_API_URL names none; {HOW_TO_START}.")
    try:
        with get_client(sync_client=True, httpx_settings=settings) as client:
            yield client
    except TransportError as error:
        raise InputError(f"no Prefect server answers at {url}; {HOW_TO_START}, or set PREFECT_API_URL.") from error
    except HTTPStatusError as error:
        if error.response.status_code not in {401, 403}:
            raise InputError(f"what answers at {url} is no Prefect server; correct PREFECT_API_URL.") from error
        raise InputError(
            f"the Prefect server at {url} refuses this client's password; set PREFECT_API_AUTH_STRING."
        ) from error


@contextmanager
def if_it_answers(retries: int = 0) -> Iterator[None]:
    """Ends early where the server gives no answer, having asked ``retries`` times more after 2, 4, 8... seconds."""
    with suppress(HTTPError), temporary_settings({PREFECT_CLIENT_MAX_RETRIES: retries}):
        yield


class ProgressArtifact:
    """How far something long is, in the Prefect pages: an artifact under ``key``, updated every few seconds at most."""

    def __init__(self, key: str, at_once: bool = False) -> None:
        self._key = key
        self._updated = 0.0 if at_once else time.monotonic()
        self._of: object = None
        self._artifact: UUID | None = None

    def is_due(self) -> bool:
        """False for a few seconds after it was shown; also after it was made, unless it was to show ``at_once``."""
        return time.monotonic() - self._updated >= SECONDS_BETWEEN_UPDATES

    def show(self, percent: float, words: str, of: object = None) -> None:
        """Shows how much is done; another ``of`` than before begins a new artifact under the same key.

        HTTPError where the server does not answer: whoever calls says how long it is waited for.
        """
        self._updated = time.monotonic()
        if self._artifact is None or of != self._of:
            made = create_progress_artifact(percent, self._key, words)
            assert isinstance(made, UUID)  # outside of async code it is no coroutine
            self._artifact, self._of = made, of
        else:
            update_progress_artifact(self._artifact, percent, words)
