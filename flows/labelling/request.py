"""What is asked of a labelling: the form that the Prefect UI shows, what cannot be asked, and what was refused.

Why a range of shards was not labelled to its end is carried by the state of its task or flow run: from any machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from prefect.states import Failed, State
from pydantic import Field

from listflow.data.errors import InputError
from listflow.data.schema import Section
from listflow.pipeline.run.config import Homed

REFUSED = "Refused"


class LabelRequest(Section):
    """A corpus, the run whose model labels it, and who does the work. Paths are the same on all machines."""

    run: Homed = Field(description="Folder of a finished run.")
    corpus: Homed = Field(description="Folder of a corpus that `listflow ingest` made.")
    output: Homed = Field(description="Folder for the labels; what is there already is not made again.")
    runner: Literal["threads", "processes", "dask", "pool"] = Field(
        "threads",
        description="Who works: threads or processes of this machine, a dask cluster, or a Prefect work pool.",
    )
    workers: int | None = Field(
        None, ge=1, le=1000, description="How many work at a time. Default: one for each core here, or 1 with a GPU."
    )
    threads: int = Field(
        1, ge=1, le=1024, description="CPU threads of each worker; another number changes the last digits."
    )
    int8: bool = Field(
        False, description="Whether frozen layers are multiplied in 8 bits: faster, and some labels may differ."
    )
    address: str | None = Field(
        None, description="A dask scheduler, such as tcp://10.0.0.1:8786; without it, one here."
    )
    deployment: str | None = Field(None, description="Deployment of flow listflow-label-shards, for runner pool.")

    @property
    def title(self) -> str:
        """What a list of runs may call it."""
        return f"{Path(self.corpus).name} by {Path(self.run).name}"


def check_request(request: LabelRequest) -> None:
    """Returns when the parts of ``request`` fit each other and what is installed; InputError otherwise."""
    if request.runner == "dask" and find_spec("prefect_dask") is None:
        raise InputError("--runner dask needs prefect-dask; install it with `pip install 'listflow[dask]'`.")
    if request.address is not None and request.runner != "dask":
        raise InputError("--address is of a dask scheduler; give --runner dask with it.")
    if (request.deployment is None) == (request.runner == "pool"):
        raise InputError(
            "--runner pool and --pool-deployment NAME go together: NAME is a deployment of listflow-label-shards."
        )


@dataclass(frozen=True)
class Reason:
    """``is_refusal``: the words are the sentence of an InputError."""

    words: str
    is_refusal: bool = False


def or_refused(label: Callable[[], int]) -> int | State:
    """What ``label`` returns, or a state that says the sentence of its InputError."""
    try:
        return label()
    except InputError as error:
        return Failed(name=REFUSED, message=str(error))


def reason_of(state: State) -> Reason | None:
    """Why what has ended in ``state`` failed; None where it did not."""
    return None if state.is_completed() else Reason(str(state.message), state.name == REFUSED)
