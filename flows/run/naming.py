"""What tells flow runs apart in a list: their names, and tags to filter them by. A name that a person typed is kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coolname.data import config as slugs
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from listflow.data.rows import source_names
from listflow.data.shards import is_corpus, read_manifest
from listflow.flows.server.client import RETRIES, if_it_answers
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.run import Run
from listflow.pipeline.run.wording import name_of, name_of_head

if TYPE_CHECKING:
    from listflow.pipeline.results.finished import Finished

TAGS = ("listflow",)
# What the form "Custom run" proposes: a Greek letter, a number at times, and a name or two.
PROPOSED = re.compile(
    r"(alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho|sigma|tau|upsilon|phi|chi"
    r"|psi|omega)\d*(-[a-z]+)+"
)
MOST_NAMED = 2  # sources of new rows that a name says one by one


def tags_of(model: RunConfig | Finished) -> list[str]:
    """The tags of every flow run that trains ``model`` or works with it: ours, and what is trained, by its names."""
    return [*TAGS, *(name.partition(" (")[0] for name in (name_of(model.stage), name_of_head(model.head)))]


def introduce(title: str, model: RunConfig | Finished | None = None) -> None:
    """Gives the flow run of this block ``title`` as its name, unless a person has named it, and tags of ``model``.

    Nothing outside of a flow run, and where the server does not answer.
    """
    here = FlowRunContext.get()
    if here is None or here.flow_run is None:
        return
    tags = sorted({*here.flow_run.tags, *tags_of(model)}) if model else None
    with if_it_answers(RETRIES), get_client(sync_client=True) as client:
        client.update_flow_run(here.flow_run.id, name=name_beside(here.flow_run.name, title), tags=tags)


def name_beside(given: str, title: str) -> str:
    """The name of a flow run that has been ``given`` one: ``title`` where Prefect made it up.

    What the form proposes looks like what a person may type, and stays in front.
    """
    if _is_slug(given):
        return title
    return f"{given}, {title}" if PROPOSED.fullmatch(given) else given


def title_of(run: Run) -> str:
    """``tickets-003: +240 rows of march`` for a run that goes on from another, and the title of any other one."""
    if run.parent is None:
        return run.config.title
    again = ", resumed" if any(run.files.rounds()) else ""
    return f"{run.folder.name}: +{run.news:,} rows of {_joined(list(_news(run)))}{again}"


def _is_slug(name: str) -> bool:
    """Whether a server made ``name`` up: an adjective and an animal."""
    return not name or (name.count("-") == 1 and set(name.split("-")) <= _words_of_slugs())


@cache
def _words_of_slugs() -> frozenset[str]:
    lists: dict[str, Any] = slugs
    return frozenset(word for part in lists.values() for word in part.get("words", ()))


def _news(run: Run) -> Iterator[str]:
    """Where new rows came from: files that a corpus took in, and the corpus where the run is not called after it."""
    assert run.parent is not None
    built, sources = run.inputs.built, run.config.data.unlabelled
    pool = built.pool
    for name, span in pool.spans().items():
        last = run.parent.last_rows.get(name, 0)
        if pool.upto(span, last) == len(span):
            continue
        corpus = Path(sources[source_names(sources).index(name)])
        newest = built.sources[name].last if built.is_sample else int(pool.numbers[span[-1]])
        files = _files_of(corpus, last + 1, newest) if is_corpus(str(corpus)) else []
        yield _joined(files) if files and run.folder.name.startswith(name) else _within(name, files)


def _files_of(corpus: Path, first: int, last: int) -> list[str]:
    """The files that the rows ``first`` to ``last`` of a corpus came from, each once."""
    shards = read_manifest(corpus).shards
    return list(
        dict.fromkeys(shard.source for shard in shards if shard.first <= last and shard.first + shard.rows > first)
    )


def _within(name: str, files: list[str]) -> str:
    return f"{name} ({_joined(files)})" if files else name


def _joined(names: list[str]) -> str:
    shown = names if len(names) <= MOST_NAMED else [*names[: MOST_NAMED - 1], f"{len(names) - MOST_NAMED + 1} more"]
    return " and ".join(shown)
