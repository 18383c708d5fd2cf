"""What the moving line says of a run of two views."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from listflow.flows.cli.progress import Display, phase_of
from listflow.pipeline.run.run import Progress


@pytest.mark.parametrize(
    ("phase", "view", "words"),
    [
        ("warmup", "", "train student, warm-up"),
        ("warmup", "text", "train text student, warm-up"),
        ("reweighted", "prompt", "train prompt student, meta-reweighted"),
        ("folds", "", "look at labelled rows unseen"),
        ("folds", "prompt", "weigh the views"),
        ("embed", "", "read sentences"),
        ("judge", "text", "look at the sample, text view"),
        ("drift, {old} rows", "text", "drift, {old} rows, text view"),
    ],
)
def test_a_phase_says_which_view_is_at_work(phase: str, view: str, words: str) -> None:
    assert phase_of(Progress(1, phase, 1, 2, view=view)) == words


def test_the_same_phase_of_another_view_is_another_line() -> None:
    said = StringIO()
    with Display(Console(file=said, width=200), 2) as display:
        for view in ("prompt", "prompt", "text"):
            display.moved(Progress(1, "tail", 1, 2, 0.5, view))
    assert said.getvalue().splitlines() == [
        "round 1 of 2: train prompt student, labelled tail",
        "round 1 of 2: train text student, labelled tail",
    ]
