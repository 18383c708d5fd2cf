"""The flow: lite self-training from end to end, as the paper's algorithm 1 reads (arXiv 2110.06274)."""

from typing import Any

from prefect import flow
from prefect.serializers import JSONSerializer

from listflow.flows.pages.artifacts import Meter, show_report, show_rounds, show_start
from listflow.flows.run.naming import introduce
from listflow.flows.run.review import review
from listflow.flows.run.session import session
from listflow.flows.run.tasks import judge, prompt_tune, pseudo_label, publish, settle, train_student, weigh_views
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.training.committee import speaking


def train(config: RunConfig) -> dict[str, Any]:
    """Few labels and much unlabelled text become a small classifier.

    A teacher is prompt-tuned on the labels. In every round it labels unlabelled texts, a fresh student learns
    from them with meta weights, and a verdict says whether the student becomes the teacher. A run of two views has a
    teacher and a student of each, which label and are judged together. Where it is asked for, a person corrects the
    most contested labels first. The same configuration again goes on where an interrupted run stopped. The rounds are
    tasks of the flow run that calls this, so that whoever opens it sees them.
    """
    with session(config, Meter()) as run:
        for view in run.views:
            settle(prompt_tune, 0, view.view)
        if run.others:
            settle(weigh_views, 0)
        show_start(run)
        history: list[dict[str, Any]] = []
        number = 0
        for number in range(1, config.rounds.count + 1):
            labels = settle(pseudo_label, number)
            review(run, number)
            students = {view.view: settle(train_student, number, view.view) for view in speaking(run)}
            verdict = settle(judge, number)
            history.append({"students": students, **labels, **verdict})
            show_rounds(run, history)
            if verdict["stop"]:
                break
        outcome = settle(publish, number)
        show_report(run.folder)
    return outcome


# Annotations here are types and not text, as no ``from __future__ import annotations`` makes them: a served flow is
# sent to its process as a value, and text would be looked up where the types are not.
# The serializer is for exceptions, which Prefect keeps of a failed flow, and pickles if it is not told otherwise.
@flow(name="listflow", persist_result=False, result_serializer=JSONSerializer())
def self_train(config: RunConfig) -> dict[str, Any]:
    """Few labels and much unlabelled text become a small classifier: lite self-training from end to end."""
    introduce(config.title, config)
    return train(config)
