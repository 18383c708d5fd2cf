"""The stages of a run as Prefect tasks: each calls one function of ``pipeline`` and returns paths and figures."""

from __future__ import annotations

from listflow.flows.run.session import current
from listflow.flows.settle import Facts, folder_files, plain_files, stage
from listflow.pipeline.results import outcome
from listflow.pipeline.training import rounds
from listflow.pipeline.training.review import correction_files


@stage("prompt-tune the teacher")
def prompt_tune(number: int, made_from: str) -> Facts:
    """Round 0: the teacher, tuned on the labelled rows only."""
    run = current().run
    found = rounds.prompt_tune(run)
    return _pick(found, "zero_shot", "test", "seconds") | {"files": folder_files(run.model_folder(0))}


@stage("pseudo-label, round {number}")
def pseudo_label(number: int, made_from: str) -> Facts:
    """The teacher's soft labels for the rows of a round, of which none was corrected before."""
    run = current().run
    found = rounds.pseudo_label(run, number)
    files = folder_files(run.round_folder(number) / "pseudo") | plain_files(*correction_files(run, number))
    return _pick(found, "round", "teacher_round", "rows", "per_class", "mean_confidence") | {"files": files}


@stage("train student, round {number}")
def train_student(number: int, made_from: str) -> Facts:
    """A fresh student: warm-up, meta-reweighted steps, labelled tail."""
    run = current().run
    found = rounds.train_student(run, number)
    return _pick(found, "round", "test", "reweight", "seconds") | {"files": folder_files(run.model_folder(number))}


@stage("judge, round {number}")
def judge(number: int, made_from: str) -> Facts:
    """Whether the student becomes the teacher, and whether the rounds may stop."""
    run = current().run
    found = rounds.judge(run, number)
    files = plain_files(run.round_folder(number) / "verdict.json")
    return _pick(found, "round", "promoted", "reason", "agreement", "stop") | {"files": files}


@stage("publish")
def publish(number: int, made_from: str) -> Facts:
    """The final model, a prediction for every unlabelled row, and the report, after round ``number``."""
    run = current().run
    found = outcome.publish(run, number)
    pages = [run.folder / name for name in ("predictions.parquet", "report.json", "report.html")]
    return {
        "run": str(run.folder),
        "final_round": found["round"],
        "files": folder_files(run.folder / "final") | plain_files(*pages),
    }


def _pick(facts: Facts, *names: str) -> Facts:
    return {name: facts[name] for name in names}
