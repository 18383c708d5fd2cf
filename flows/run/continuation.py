"""The flow that a schedule or a new corpus starts: it goes on where the last run stopped, if there is anything new."""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.runtime import flow_run
from prefect.serializers import JSONSerializer
from prefect.states import Completed, State

from listflow.data.errors import InputError, NothingNew
from listflow.data.files import at_home
from listflow.flows.run.self_training import self_train
from listflow.flows.run.session import looked_up
from listflow.pipeline.run.lineage import next_of
from listflow.pipeline.run.opening import look_up


def _name() -> str:
    return f"go on from {Path(flow_run.parameters['run']).name}"


@flow(name="listflow-continue", flow_run_name=_name, persist_result=False, result_serializer=JSONSerializer())
def go_on(run: str) -> dict[str, Any] | State[None]:
    """Resumes the newest run that went on from ``run`` if it was interrupted, else goes on from it with new rows.

    Ends as Completed, and says so, where nothing is new or another process is at work.
    """
    what = next_of(Path(at_home(run)))
    if what.config is None:
        return Completed(message=what.words)
    try:
        found = look_up(what.config)
        # NothingNew, before a flow run of its own is begun for it and would end as failed.
        found.check_news()
        with looked_up(found):
            return self_train(what.config)
    except NothingNew as reason:
        return Completed(message=str(reason))


def has_news(run: Path) -> bool:
    """Whether ``go_on`` has something to do: also where it would fail, as its flow run says so to whoever looks."""
    try:
        what = next_of(run)
        if what.config is not None:
            look_up(what.config).check_news()
    except NothingNew:
        return False
    except InputError:
        return True
    return what.config is not None
