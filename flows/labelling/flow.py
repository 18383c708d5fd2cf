"""The flow that labels a whole corpus with the final model of a run, on one machine or many.

How far it is, and what it came to, is told to whoever listens, and to the Prefect UI under stable keys.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import pairwise
from pathlib import Path
from typing import Any

from httpx import HTTPError
from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.serializers import JSONSerializer
from prefect.states import State

from listflow.data.errors import InputError
from listflow.data.shards import check_shard
from listflow.flows.labelling.request import LabelRequest, Reason, check_request
from listflow.flows.labelling.runners import Range, check_scheduler, label_told, run_tasks
from listflow.flows.labelling.work_pool import check_pool, run_children
from listflow.flows.run.cancellation import Heed, cancellable
from listflow.flows.run.naming import introduce
from listflow.flows.server.client import ProgressArtifact
from listflow.pipeline.results.labelling import Labelling, Standing
from listflow.pipeline.storage.markdown import plain

PROGRESS, LABELS = "list-labelling-progress", "list-labelling"
MOST_CLASSES = 100
TASKS_A_PASS = (40, 20)
CHILDREN_A_WORKER = 4

Tell = Callable[[Standing], None]
_TOLD: ContextVar[tuple[Tell, ...]] = ContextVar("told", default=())


class Unlabelled(RuntimeError):
    """Some shards could not be labelled; the message says why, and how to go on."""


# As in flows/run/self_training.py: types and not text as annotations, and no pickle of exceptions.
@flow(name="listflow-label", persist_result=False, result_serializer=JSONSerializer())
def label_corpus(request: LabelRequest) -> dict[str, Any]:
    """Every row of a corpus gets a label: shards that have none are given to workers, a range of them to each.

    What a worker that was killed has left is given out once more. The same request again goes on where an
    interrupted one stopped, and labels what a corpus has got since. InputError for what a person can mend.
    """
    check_request(request)
    if request.runner == "pool":
        check_pool(request)
    check_scheduler(request)
    work, began = (
        Labelling.open(Path(request.run), Path(request.corpus), Path(request.output), request.int8),
        time.monotonic(),
    )
    introduce(request.title, work.run)
    heed = Heed()
    with cancellable(heed, "the same request labels what is left."), work.begun():
        waiting = work.left()
        reasons = [reason for most in TASKS_A_PASS for reason in _label(work, request, most, heed)]
        _check_all(work, reasons)
        work.sweep()
        return _show_labels(work, sum(shard.rows for shard in waiting), time.monotonic() - began)


@task(
    task_run_name="label shards {first} to {last}", cache_policy=NO_CACHE, persist_result=False,
    result_serializer=JSONSerializer(), cache_result_in_memory=False,
)  # fmt: skip
def label_some(run: str, corpus: str, output: str, first: int, last: int, threads: int, driver: str) -> int | State:
    """How many of a range of shards it labelled: those that were not."""
    return label_told(run, corpus, output, first, last, threads, driver)


@contextmanager
def told(tell: Tell) -> Iterator[None]:
    """Every labelling inside the block calls ``tell`` now and then."""
    token = _TOLD.set((*_TOLD.get(), tell))
    try:
        yield
    finally:
        _TOLD.reset(token)


class Watch:
    """Looks at a labelling, and shows what it sees; in the UI every few seconds at most."""

    def __init__(self, work: Labelling) -> None:
        self._work, self._artifact = work, ProgressArtifact(PROGRESS, at_once=True)

    def look(self) -> None:
        """Tells everyone how far the labelling is now."""
        found = self._work.standing()
        for tell in _TOLD.get():
            tell(found)
        if self._artifact.is_due():
            words = f"{found.shards:,} of {found.all_shards:,} shards, {found.rows:,} of {found.all_rows:,} rows"
            # A server that is away for a moment must not end a labelling.
            with suppress(HTTPError):
                self._artifact.show(100 * found.rows / found.all_rows, words)


def ranges_of(numbers: list[int], most: int) -> list[Range]:
    """(first, last) of at most ``most`` pieces of ``numbers``, which ascend; as even as can be."""
    count = min(most, len(numbers))
    ends = [len(numbers) * piece // count for piece in range(count + 1)]
    return [(numbers[start], numbers[end - 1]) for start, end in pairwise(ends)]


def _label(work: Labelling, request: LabelRequest, most: int, heed: Heed) -> list[Reason]:
    """Gives what is left to at most ``most`` tasks or child flows; why some of them failed, if they did."""
    left, watch = [shard.number for shard in work.left()], Watch(work)
    if not left:
        return []

    def look() -> None:
        heed.check()
        watch.look()

    if request.runner == "pool":
        # A child flow starts a process and loads the model, so there are few of them.
        few = min(most, CHILDREN_A_WORKER * (request.workers or 1))
        return run_children(work, request, ranges_of(left, few), look)
    return run_tasks(work, request, ranges_of(left, most), look, label_some)


def _check_all(work: Labelling, reasons: list[Reason]) -> None:
    left = work.left()
    for shard in left:
        check_shard(work.corpus, shard)
    if left:
        for reason in reasons:
            if reason.is_refusal:
                raise InputError(reason.words)
        why = f" ({reasons[-1].words})" if reasons else ""
        raise Unlabelled(f"{len(left):,} of {len(work.manifest.shards):,} shards are not labelled{why}")


def _show_labels(work: Labelling, fresh: int, seconds: float) -> dict[str, Any]:
    """What a complete labelling came to, also as a table; ``fresh`` rows were labelled now, in ``seconds``."""
    records = work.done().values()
    classes: Counter[str] = Counter()
    for record in records:
        classes.update(record.per_class)
    facts = {"shards": len(records), "rows": classes.total(), "rows_now": fresh, "rows_a_second": fresh / seconds}
    largest = dict(classes.most_common(MOST_CLASSES))
    row = {"shards": len(records), "rows": classes.total(), "labelled now": fresh, "rows/s": round(fresh / seconds)}
    create_table_artifact([row | largest], LABELS, f"Labels of {plain(work.manifest.name)} by {plain(work.run.name)}")
    return {"output": str(work.folder), **facts, "per_class": {label: classes[label] for label in work.labels}}
