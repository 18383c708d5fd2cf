"""All rounds in one call, without Prefect: what a script, a benchmark or a test uses."""

from __future__ import annotations

from listflow.pipeline.results.outcome import publish, report_of
from listflow.pipeline.results.report import RunReport
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.run import Notify, Run
from listflow.pipeline.training.committee import speaking, weigh_views
from listflow.pipeline.training.review import ask
from listflow.pipeline.training.rounds import judge, prompt_tune, pseudo_label, train_student


def self_train(config: RunConfig, notify: Notify = lambda progress: None) -> RunReport:
    """The report of a finished run; finished parts of an interrupted one are kept. InputError for bad input.

    It does not wait for a review, and uses what was answered when the next round begins.
    """
    with open_run(config, notify) as run:
        return train(run)


def train(run: Run) -> RunReport:
    """The report of ``run`` after all of its rounds; what of them is finished already is kept."""
    for view in run.views:
        prompt_tune(view)
    weigh_views(run)
    last = 0
    for last in range(1, run.config.rounds.count + 1):
        pseudo_label(run, last)
        ask(run, last)
        for view in speaking(run):
            train_student(view, last)
        if judge(run, last)["stop"]:
            break
    publish(run, last)
    return report_of(run.folder)
