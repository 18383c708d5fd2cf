"""What listflow tells a Prefect server, besides its runs: a corpus has grown."""

from __future__ import annotations

from pathlib import Path

from listflow.data.corpora.ingest import Ingested

CORPUS_ADDED = "listflow.corpus.added"
SECONDS = 5.0  # an ingest is done by then, and should not seem to hang


def corpus_added(folder: Path, done: Ingested) -> bool:
    """Tells the server, which can start a run on it; False where none is configured or nothing came in.

    InputError where the server does not take it.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    if not PREFECT_API_URL.value() or not done.added:
        return False
    from prefect.events import Event

    from listflow.flows.server.client import server_client

    event = Event(
        event=CORPUS_ADDED,
        resource={"prefect.resource.id": f"listflow.corpus.{folder.name}", "prefect.resource.name": folder.name},
        payload={"path": str(folder.resolve()), "added": done.added, "rows": done.manifest.rows},
    )
    # Asked and answered, where Prefect's emit_event leaves it to a thread that nobody hears of.
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), server_client(timeout=SECONDS) as client:
        client.request("POST", "/events", json=[event.model_dump(mode="json")])
    return True
