"""The run that a flow has open, and who watches it: what tasks need and what is no task parameter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from prefect.context import TagsContext

from listflow.flows.run.cancellation import Heed, cancellable
from listflow.flows.run.holder import holding
from listflow.flows.run.naming import introduce, title_of
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.opening import Found, open_run
from listflow.pipeline.run.run import Progress, Run


class Watcher(Protocol):
    """Someone who is told how a run goes."""

    def opened(self, run: Run) -> None:
        """Called once, when all inputs are checked."""

    def moved(self, progress: Progress) -> None:
        """Called after every step."""


@dataclass
class Session:
    """``made_from`` names the run, its folder, and everything its finished stages wrote."""

    run: Run
    made_from: str


_SESSION: ContextVar[Session] = ContextVar("session")
WATCHERS: ContextVar[tuple[Watcher, ...]] = ContextVar("watchers", default=())
_FOUND: ContextVar[Found | None] = ContextVar("found", default=None)


@contextmanager
def session(config: RunConfig, *watchers: Watcher) -> Iterator[Run]:
    """The run of ``config``, open and locked, as the one that tasks inside the block work on."""
    heed = Heed()
    everyone = (heed, *watchers, *WATCHERS.get())

    def notify(progress: Progress) -> None:
        for watcher in everyone:
            watcher.moved(progress)

    opening = open_run(config, notify, found=_FOUND.get(), claim=holding)
    # A task that inherits tags of its flow asks for a place under each, and fails while the server is away.
    with cancellable(heed), TagsContext(current_tags=set()), opening as run:
        if run.parent is not None:
            introduce(title_of(run))
        start = sha256(f"{run.fingerprint} {run.folder}".encode()).hexdigest()
        token = _SESSION.set(Session(run, start))
        try:
            for watcher in everyone:
                watcher.opened(run)
            yield run
        finally:
            _SESSION.reset(token)


def current() -> Session:
    """The session of the flow that is running."""
    return _SESSION.get()


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Every run opened inside the block tells ``watcher``."""
    token = WATCHERS.set((*WATCHERS.get(), watcher))
    try:
        yield
    finally:
        WATCHERS.reset(token)


@contextmanager
def looked_up(found: Found) -> Iterator[None]:
    """A run of that configuration, opened inside the block, need not look its inputs up again."""
    token = _FOUND.set(found)
    try:
        yield
    finally:
        _FOUND.reset(token)
