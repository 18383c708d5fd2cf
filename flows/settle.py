"""Stages as Prefect tasks whose cached results are believed only while their files are what they were.

The key of a result chains over the run's fingerprint, its folder, and the contents of all files that earlier
stages wrote: the same inputs find it again, in any process, and another folder never does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from prefect import Task, task
from prefect.context import TaskRunContext
from prefect.serializers import JSONSerializer

from listflow.flows.run.session import current
from listflow.pipeline.storage.checkpoint import MANIFEST, file_digest, verified

Facts = dict[str, Any]


class Stage(Protocol):
    """A stage of a run: does the work of a round, or finds it done; returns paths and figures."""

    def __call__(self, number: int, made_from: str) -> Facts: ...


def stage(run_name: str) -> Callable[[Stage], Task[[int, str], Facts]]:
    """Decorator: a task with readable ``run_name`` (``{number}`` is the round) and a cache that outlives it."""
    return task(
        task_run_name=run_name,
        cache_key_fn=_key,
        persist_result=True,
        result_serializer=JSONSerializer(),
        cache_result_in_memory=False,
    )


def settle(work: Task[[int, str], Facts], number: int) -> Facts:
    """The facts of a stage: from Prefect's cache if the files they speak of are intact, else made again."""
    now = current()
    facts = work(number, now.made_from)
    if not _intact(facts["files"]):
        facts = work.with_options(refresh_cache=True)(number, now.made_from)
    now.made_from = _chained(now.made_from, facts["files"])
    return facts


def folder_files(folder: Path) -> dict[str, str]:
    """Path and sha256 of everything in a complete folder."""
    manifest = verified(folder)
    assert manifest is not None, f"{folder} was not completed"
    files = {str(folder / name): digest for name, digest in manifest["files"].items()}
    return files | plain_files(folder / MANIFEST)


def plain_files(*paths: Path) -> dict[str, str]:
    """Path and sha256 of single files."""
    return {str(path): file_digest(path) for path in paths}


def _key(context: TaskRunContext, parameters: Mapping[str, Any]) -> str:
    return f"{context.task.name}-{parameters['number']}-{parameters['made_from'][:40]}"


def _intact(files: Mapping[str, str]) -> bool:
    try:
        return all(file_digest(Path(path)) == digest for path, digest in files.items())
    except OSError:
        return False


def _chained(before: str, files: Mapping[str, str]) -> str:
    # A manifest holds the seconds that the work took, so making a folder again changes it and nothing else.
    lasting = [f"{path} {digest}" for path, digest in sorted(files.items()) if Path(path).name != MANIFEST]
    return sha256("\n".join([before, *lasting]).encode()).hexdigest()
