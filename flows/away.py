"""A Prefect server that is away for a while must not hold up or end a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from httpx import HTTPError
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

RETRIES = 2  # a busy server gets another chance to keep a table


@contextmanager
def if_it_answers(retries: int = 0) -> Iterator[None]:
    """Ends early where the server gives no answer, having asked ``retries`` times more after 2, 4, 8... seconds."""
    with suppress(HTTPError), temporary_settings({PREFECT_CLIENT_MAX_RETRIES: retries}):
        yield
