"""How far a labelling is, while it goes and at its end: for a terminal, and for the Prefect UI under stable keys."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact

from listflow.pipeline.results.labelling import Labelling, Standing

PROGRESS, LABELS = "list-labelling-progress", "list-labelling"
SECONDS_BETWEEN_UPDATES = 5.0
MOST_CLASSES = 100

Tell = Callable[[Standing], None]
_TOLD: ContextVar[tuple[Tell, ...]] = ContextVar("told", default=())


@contextmanager
def told(tell: Tell) -> Iterator[None]:
    """Every labelling inside the block calls ``tell`` now and then."""
    token = _TOLD.set((*_TOLD.get(), tell))
    try:
        yield
    finally:
        _TOLD.reset(token)


class Watch:
    """Looks at a labelling, and shows what it sees; one progress artifact, updated every few seconds at most."""

    def __init__(self, work: Labelling) -> None:
        self._work = work
        self._artifact: UUID | None = None
        self._updated = 0.0

    def look(self) -> None:
        """Tells everyone how far the labelling is now."""
        found = self._work.standing()
        for tell in _TOLD.get():
            tell(found)
        if time.monotonic() - self._updated >= SECONDS_BETWEEN_UPDATES:
            self._updated = time.monotonic()
            # A server that is away for a moment must not end a labelling.
            with suppress(HTTPError):
                self._show(found)

    def _show(self, found: Standing) -> None:
        done = 100 * found.rows / found.all_rows
        words = f"{found.shards:,} of {found.all_shards:,} shards, {found.rows:,} of {found.all_rows:,} rows"
        if self._artifact is None:
            made = create_progress_artifact(done, PROGRESS, words)
            assert isinstance(made, UUID)  # outside of async code it is no coroutine
            self._artifact = made
        else:
            update_progress_artifact(self._artifact, done, words)


def show_labels(work: Labelling, fresh: int, seconds: float) -> dict[str, Any]:
    """What a complete labelling came to, also as a table; ``fresh`` rows were labelled now, in ``seconds``."""
    records = work.done().values()
    classes: Counter[str] = Counter()
    for record in records:
        classes.update(record.per_class)
    facts = {"shards": len(records), "rows": classes.total(), "rows_now": fresh, "rows_a_second": fresh / seconds}
    largest = dict(classes.most_common(MOST_CLASSES))
    row = {"shards": len(records), "rows": classes.total(), "labelled now": fresh, "rows/s": round(fresh / seconds)}
    create_table_artifact([row | largest], LABELS, f"Labels of {work.manifest.name} by {work.run.name}")
    return {"output": str(work.folder), **facts, "per_class": {label: classes[label] for label in work.labels}}
