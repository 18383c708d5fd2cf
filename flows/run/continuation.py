"""The flow that a schedule or a new corpus starts: it goes on where the last run stopped, if there is anything new."""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.serializers import JSONSerializer
from prefect.states import Completed, Failed, State

from listflow.data.errors import InputError, NothingNew
from listflow.data.files import at_home
from listflow.flows.run.naming import introduce
from listflow.flows.run.self_training import train
from listflow.flows.run.session import looked_up
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.lineage import next_of
from listflow.pipeline.run.opening import look_up
from listflow.pipeline.run.record import load_config


# As in self_training.py: types and not text as annotations, and no pickle of exceptions.
@flow(name="listflow-continue", persist_result=False, result_serializer=JSONSerializer())
def go_on(run: str) -> dict[str, Any] | State[None]:
    """Resumes the newest run that went on from ``run`` if it was interrupted, else goes on from it with new rows.

    Ends as Completed, and says so, where nothing is new or another process is at work; as Failed, with one sentence,
    for what a person can mend.
    """
    first = Path(at_home(run))
    introduce(f"go on from {first.name}")
    try:
        what = next_of(first)
        introduce(what.words, load_config(first))  # what the deployment of its run has, too
        if what.config is None:
            return Completed(message=what.words)
        return _trained(what.config)
    except InputError as error:
        return Failed(message=str(error))


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


def _trained(config: RunConfig) -> dict[str, Any] | State[None]:
    try:
        found = look_up(config)
        # NothingNew, before anything is opened for it.
        found.check_news()
        with looked_up(found):
            return train(config)
    except NothingNew as reason:
        introduce(f"{Path(config.continues).name}: nothing new")
        return Completed(message=str(reason))
