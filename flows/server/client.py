"""The Prefect server that a command talks to: the configured one, or a temporary one of its own.

One that is away for a while must not hold up or end a training.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
from httpx import HTTPError, HTTPStatusError, TransportError
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.context import SettingsContext, get_settings_context
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, Settings

from listflow.data.errors import InputError
from listflow.flows.server.here import use_server_here

HOW_TO_START = "start one with `listflow up` or `listflow server` in this folder"
RETRIES = 2  # a busy server gets another chance to keep a table
SECONDS_BETWEEN_UPDATES = 5.0
SECONDS_FOR_A_PAGE = 5.0


@contextmanager
def awaited_server() -> Iterator[None]:
    """Inside the block a server starts, after it one answers: the configured one, that of this folder, or Prefect's
    temporary one, out of the reach of Ctrl-C; where that of this folder cannot be used, it says so.

    InputError where it does not start, and where the configured one is away or refuses this client.
    """
    note = use_server_here()
    if PREFECT_API_URL.value():
        check_server()
        yield
        return
    if note:
        print(f"listflow: {note}", file=sys.stderr)
    # A command that asks another server should not wait for this import.
    from listflow.flows.server.temporary import starting_temporary_server

    with starting_temporary_server():
        yield


def ensure_server() -> None:
    """A server answers, as after ``awaited_server``."""
    with awaited_server():
        pass


def check_server() -> None:
    """InputError where no server is configured or in this folder, none answers, or it refuses this client."""
    use_server_here()
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
    here = get_settings_context()
    with suppress(HTTPError), SettingsContext(profile=here.profile, settings=_patient(here.settings, retries)):
        yield


_PATIENT: dict[int, tuple[Settings, Settings]] = {}


def _patient(settings: Settings, retries: int) -> Settings:
    """``settings`` with so many retries: made once, as Prefect reads and checks all of them for every change."""
    known, found = _PATIENT.get(retries, (None, settings))
    if known is not settings:
        found = settings.copy_with_update({PREFECT_CLIENT_MAX_RETRIES: retries})
        _PATIENT[retries] = settings, found
    return found


def report_link(page: Path) -> str | None:
    """Where the pages of the configured server show the report in ``page``, a file RUN/report.html; None where it does
    not: it is no server of ours, or one that shows another folder.

    A link without a host: whoever follows it may have come through a tunnel.
    """
    api, password = PREFECT_API_URL.value(), PREFECT_API_AUTH_STRING.value()
    if not (api and api.endswith("/api") and password):
        return None
    link = f"/reports/{quote(page.parent.name, safe='')}"
    with suppress(HTTPError, OSError):
        user, _, secret = password.partition(":")
        answer = httpx.get(api.removesuffix("/api") + link, auth=(user, secret), timeout=SECONDS_FOR_A_PAGE)
        if answer.is_success and answer.content == page.read_bytes():
            return link
    return None


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
