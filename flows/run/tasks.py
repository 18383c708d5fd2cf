"""The stages of a run as Prefect tasks: each calls one function of ``pipeline`` and returns paths and figures.

Their cached results are believed only while their files are what they were. The key of a result chains over the run's
fingerprint, its folder, and the contents of all files that earlier stages wrote: the same inputs find it again, in any
process, and another folder never does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from prefect import Task, task
from prefect.context import TaskRunContext
from prefect.serializers import JSONSerializer

from listflow.data.files import file_digest
from listflow.flows.pages.log import log_stage, without_finished
from listflow.flows.run.session import current
from listflow.pipeline.results import outcome
from listflow.pipeline.run.run import Run
from listflow.pipeline.storage.checkpoint import MANIFEST, verified
from listflow.pipeline.training import committee, rounds
from listflow.pipeline.training.review import correction_files

Facts = dict[str, Any]


class Stage(Protocol):
    """A stage of a run: does the work of a round, or finds it done; returns paths and figures."""

    def __call__(self, number: int, made_from: str, view: str = "") -> Facts: ...


def settle(work: Task[..., Facts], number: int, view: str = "") -> Facts:
    """The facts of a stage, or of one ``view`` in it: from Prefect's cache if the files they speak of are intact, else
    made again. The log of the flow run says what they are.
    """
    now = current()
    own = {"view": view} if view else {}
    with without_finished():
        facts = work(number, now.made_from, **own)
        if not _intact(facts["files"]):
            facts = work.with_options(refresh_cache=True)(number, now.made_from, **own)
    now.made_from = _chained(now.made_from, facts["files"])
    log_stage(work.name, now.run, facts, view)
    return facts


def stage(run_name: str) -> Callable[[Stage], Task[..., Facts]]:
    """Decorator: a task with readable ``run_name`` (``{number}`` is the round) and a cache that outlives it."""
    return task(
        task_run_name=run_name,
        cache_key_fn=_key,
        persist_result=True,
        result_serializer=JSONSerializer(),
        cache_result_in_memory=False,
    )


def _key(context: TaskRunContext, parameters: Mapping[str, Any]) -> str:
    view = parameters.get("view", "")
    return f"{context.task.name}-{parameters['number']}-{view}{parameters['made_from'][:40]}"


@stage("{view}-tune the teacher")
def prompt_tune(number: int, made_from: str, view: str = "prompt") -> Facts:
    """Round 0: the teacher of a view, from the labelled rows."""
    run = _as(view)
    found = rounds.prompt_tune(run)
    return _pick(found, "zero_shot", "test", "seconds") | {"files": _folder_files(run.round(0).model)}


@stage("weigh the views")
def weigh_views(number: int, made_from: str, view: str = "") -> Facts:
    """Round 0: how far each of two views is believed."""
    run = current().run
    committee.weigh_views(run)
    voices = {voice.view: voice.weight for voice in committee.mixture_of(run).voices}
    return {"weights": voices, "files": _folder_files(run.round(0).committee)}


@stage("pseudo-label, round {number}")
def pseudo_label(number: int, made_from: str, view: str = "") -> Facts:
    """The teacher's soft labels for the rows of a round, of which none was corrected before."""
    run = current().run
    found = rounds.pseudo_label(run, number)
    files = _folder_files(run.round(number).pseudo) | _plain_files(*correction_files(run, number))
    return _pick(found, "round", "teacher_round", "rows", "per_class", "mean_confidence") | {"files": files}


@stage("train {view} student, round {number}")
def train_student(number: int, made_from: str, view: str = "prompt") -> Facts:
    """A fresh student of a view: warm-up, meta-reweighted steps, labelled tail."""
    run = _as(view)
    found = rounds.train_student(run, number)
    return _pick(found, "round", "test", "reweight", "seconds") | {"files": _folder_files(run.round(number).model)}


@stage("judge, round {number}")
def judge(number: int, made_from: str, view: str = "") -> Facts:
    """Whether the student becomes the teacher, and whether the rounds may stop."""
    run = current().run
    found = rounds.judge(run, number)
    files = _plain_files(run.round(number).verdict)
    return _pick(found, "round", "promoted", "reason", "agreement", "stop") | {"files": files}


@stage("publish")
def publish(number: int, made_from: str, view: str = "") -> Facts:
    """The final model, a prediction for every unlabelled row, and the report, after round ``number``."""
    run = current().run
    found = outcome.publish(run, number)
    files = run.files
    pages = [files.predictions, files.report, files.page]
    return {
        "run": str(run.folder),
        "final_round": found["round"],
        "files": _folder_files(files.final) | _plain_files(*pages),
    }


def _as(view: str) -> Run:
    """The open run as one of its views sees it."""
    return next(run for run in current().run.views if run.view == view)


def _pick(facts: Facts, *names: str) -> Facts:
    return {name: facts[name] for name in names}


def _folder_files(folder: Path) -> dict[str, str]:
    """Path and sha256 of everything in a complete folder."""
    manifest = verified(folder)
    assert manifest is not None, f"{folder} was not completed"
    files = {str(folder / name): digest for name, digest in manifest["files"].items()}
    return files | _plain_files(folder / MANIFEST)


def _plain_files(*paths: Path) -> dict[str, str]:
    """Path and sha256 of single files."""
    return {str(path): file_digest(path) for path in paths}


def _intact(files: Mapping[str, str]) -> bool:
    try:
        return all(file_digest(Path(path)) == digest for path, digest in files.items())
    except OSError:
        return False


def _chained(before: str, files: Mapping[str, str]) -> str:
    # A manifest holds the seconds that the work took, so making a folder again changes it and nothing else.
    lasting = [f"{path} {digest}" for path, digest in sorted(files.items()) if Path(path).name != MANIFEST]
    return sha256("\n".join([before, *lasting]).encode()).hexdigest()
