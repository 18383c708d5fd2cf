"""What listflow tells a Prefect server, besides its runs: a corpus has grown."""

from __future__ import annotations

from pathlib import Path

from data.ingest import Ingested

CORPUS_ADDED = "listflow.corpus.added"


def corpus_added(folder: Path, done: Ingested) -> bool:
    """Emits an event that an automation can start a run on; False where no server is configured or nothing came in."""
    from prefect.events import emit_event
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is None or not done.added:
        return False
    emit_event(
        CORPUS_ADDED,
        resource={"prefect.resource.id": f"listflow.corpus.{folder.name}", "prefect.resource.name": folder.name},
        payload={"path": str(folder.resolve()), "added": done.added, "rows": done.manifest.rows},
    )
    return True
