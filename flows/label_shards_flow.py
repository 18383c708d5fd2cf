"""The flow that a work pool runs for a range of shards, on each machine that serves the pool."""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.serializers import JSONSerializer
from prefect.states import State

from listflow.flows.label_reason import or_refused
from listflow.pipeline.results.label_worker import label_range


# As in list_flow.py: types and not text as annotations, and no pickle of exceptions.
@flow(
    name="listflow-label-shards", flow_run_name="shards {first} to {last}", persist_result=False,
    result_serializer=JSONSerializer(),
)  # fmt: skip
def label_shards(
    run: str, corpus: str, output: str, first: int, last: int, threads: int = 1, driver: str = ""
) -> int | State[Any]:
    """Labels the shards ``first`` to ``last`` of a corpus, save those that are labelled; returns how many it did.

    ``driver`` is the id of the labelling that it works for: it ends with it.
    """
    return or_refused(lambda: label_range(Path(run), Path(corpus), Path(output), first, last, threads, driver))
