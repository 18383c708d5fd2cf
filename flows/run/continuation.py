"""The flow that a schedule or a new corpus starts: it goes on where the last run stopped, if there is anything new."""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.runtime import flow_run
from prefect.serializers import JSONSerializer
from prefect.states import Completed, State

from listflow.data.errors import InputError, NothingNew
from listflow.flows.run.self_training import self_train
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.continuation import pinned_parent
from listflow.pipeline.run.lineage import next_of
from listflow.pipeline.run.sources import resolve_sources


def _name() -> str:
    return f"go on from {Path(flow_run.parameters['run']).name}"


@flow(name="listflow-continue", flow_run_name=_name, persist_result=False, result_serializer=JSONSerializer())
def go_on(run: str) -> dict[str, Any] | State[None]:
    """Resumes the newest run that went on from ``run`` if it was interrupted, else goes on from it with new rows.

    Ends as Completed, and says so, where nothing is new or another process is at work.
    """
    what = next_of(Path(run))
    if what.config is None:
        return Completed(message=what.words)
    try:
        _check_news(what.config)
        return self_train(what.config)
    except NothingNew as reason:
        return Completed(message=str(reason))


def has_news(run: Path) -> bool:
    """Whether ``go_on`` has something to do: also where it would fail, as its flow run says so to whoever looks."""
    try:
        what = next_of(run)
        if what.config is not None:
            _check_news(what.config)
    except NothingNew:
        return False
    except InputError:
        return True
    return what.config is not None


def _check_news(config: RunConfig) -> None:
    """NothingNew, before a flow run of its own is begun for it and would end as failed."""
    sources, (config, parent) = resolve_sources(config), pinned_parent(config)
    if parent is not None:
        parent.check(config, list(sources.task.labels), sources.digests)
