"""What listflow tells a Prefect server, besides its runs: a corpus has grown."""

from __future__ import annotations

from pathlib import Path

from listflow.data.corpora.growth import Growth, tell_growth

CORPUS_ADDED = "listflow.corpus.added"
SECONDS = 5.0  # an ingest is done by then, and should not seem to hang


def corpus_added(folder: Path) -> bool:
    """Tells the server of all growth that it has not heard of, so that it can start a run on it; False where there is
    none, or no server is configured.

    InputError where the server does not take it: the next call tells it again, under the same id.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    from listflow.flows.server.here import use_server_here

    use_server_here()
    if not PREFECT_API_URL.value():
        return False
    from prefect.events import Event

    from listflow.flows.server.client import server_client

    heard: list[Growth] = []

    def tell(growth: Growth) -> None:
        event = Event(
            id=growth.id,
            event=CORPUS_ADDED,
            resource={"prefect.resource.id": f"listflow.corpus.{folder.name}", "prefect.resource.name": folder.name},
            payload={"path": str(folder.resolve()), "added": growth.added, "rows": growth.rows},
        )
        # Asked and answered, where Prefect's emit_event leaves it to a thread that nobody hears of.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), server_client(timeout=SECONDS) as client:
            client.request("POST", "/events", json=[event.model_dump(mode="json")])
        heard.append(growth)

    tell_growth(folder, tell)
    return bool(heard)
