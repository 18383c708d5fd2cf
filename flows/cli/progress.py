"""What is shown of a run: where it stands while it goes, and what it would do.

A run that goes is one moving line in a terminal, and one plain line a phase elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console

from listflow.data.files import short
from listflow.flows.cli.console import MovingLine, print_line
from listflow.pipeline.run.wording import duration, percent, trained

if TYPE_CHECKING:
    from pathlib import Path

    from listflow.pipeline.run.run import Progress as Place
    from listflow.pipeline.run.run import Run
    from listflow.pipeline.training.plan import Plan

PHASES = {
    "tokenise": "tokenise",
    "read": "read the texts once",
    "embed": "read sentences",
    "match": "match sentences and labels",
    "centre": "centre the label words",
    "zero-shot": "measure without labels",
    "labelled": "prompt-tune the teacher",
    "folds": "look at labelled rows unseen",
    "label": "pseudo-label",
    "warmup": "train student, warm-up",
    "reweighted": "train student, meta-reweighted",
    "tail": "train student, labelled tail",
    "judge": "look at the sample",
    "test": "measure on test rows",
    "predict": "predict every unlabelled row",
}
# Where there are two views: what is said of one of them. Other phases are followed by its name.
OF_A_VIEW = {
    "labelled": "prompt-tune the teacher",
    "match": "match sentences and labels, the text teacher",
    "folds": "weigh the views",
    "warmup": "train {view} student, warm-up",
    "reweighted": "train {view} student, meta-reweighted",
    "tail": "train {view} student, labelled tail",
}
WIDTH, SHOWN_WORDS = 40, 20


class Display(MovingLine):
    """Shows a run while it goes. ``folder`` is where it is kept, as soon as that is known."""

    def __init__(self, console: Console, rounds: int) -> None:
        super().__init__(console, "start Prefect, load the backbone")
        self.folder: Path | None = None
        self._rounds = rounds
        self._said: tuple[int, str, str] | None = None

    def opened(self, run: Run) -> None:
        """A short plan, before the work."""
        from listflow.pipeline.training.plan import steps_of, trainable_parameters

        self.folder = run.folder
        teacher, student = steps_of(run)
        backbone = f"{run.backbone.name}, {run.backbone.parameter_count():,} parameters, frozen"
        rows = f"{len(run.gold)} labelled, {run.inputs.built.rows:,} unlabelled, {len(run.inputs.test):,} test"
        for name, value in {
            "task": f"{run.inputs.task.name} ({len(run.labels)} classes)",
            "rows": rows,
            "backbone": f"{backbone}; {trainable_parameters(run):,} trainable",
            "steps": f"{teacher:,} for the teacher, then {self._rounds} rounds x {sum(student.values()):,}",
            "kept in": short(run.folder),
        }.items():
            print_line(self.console, f"{name:>9}  {value}")
        for notice in run.notices:
            print_line(self.console, f"{'note':>9}  {notice}")

    def moved(self, place: Place) -> None:
        """The moving line, or a plain one when the phase is new."""
        words = phase_of(place)
        where = f"round {place.round} of {self._rounds}: {words}" if place.round else words
        if self.console.is_terminal:
            self._move(where, place)
        elif self._said != (place.round, place.phase, place.view):
            print_line(self.console, where)
        self._said = (place.round, place.phase, place.view)

    def _move(self, where: str, place: Place) -> None:
        shown: dict[str, Any] = {"description": where, "note": "" if place.loss is None else f"loss {place.loss:.3f}"}
        if place.done <= 1 or self.bar.tasks[0].total != place.total:
            self.bar.reset(self.line, total=place.total, completed=place.done, **shown)
        else:
            self.bar.update(self.line, completed=place.done, **shown)


def phase_of(place: Place) -> str:
    """The phase in words, and which of two views is at work."""
    words = PHASES.get(place.phase, place.phase)
    if not place.view:
        return words
    own = OF_A_VIEW.get(place.phase)
    return own.format(view=place.view) if own else f"{words}, {place.view} view"


def show_plan(plan: Plan, console: Console) -> None:
    """Prints ``plan``: facts, prompts, label words where they are read, lengths, steps and time."""
    for line in (*_facts(plan), *_prompts(plan), *_words(plan), *_lengths(plan), *_work(plan)):
        style = None if line.startswith(" ") else "bold"
        console.print(line, style=style, soft_wrap=True, highlight=False, markup=False, emoji=False)


def _facts(plan: Plan) -> Iterator[str]:
    yield plan.task
    yield f"  rows      {plan.labelled:,} labelled, {plan.unlabelled:,} unlabelled, {plan.test:,} test"
    yield f"  backbone  {plan.backbone}, {plan.backbone_parameters:,} parameters, frozen"
    yield f"  trained   {_trained(plan)}"
    if plan.second:
        yield f"  beside    head {plan.second} on the sentence embedding of the bare text"
    shares = (f"{percent(share)} of {name}" for name, share in plan.unknown.items())
    yield f"  unknown   {', '.join(shares)} tokens"
    yield f"  kept in   {plan.folder}{' (begun; a run would go on there)' if plan.started else ''}"
    for notice in plan.notices:
        yield f"  note      {notice}"


def _trained(plan: Plan) -> str:
    return trained(plan.stage, plan.head, plan.trainable_parameters, plan.backbone_parameters)


def _prompts(plan: Plan) -> Iterator[str]:
    yield "prompts, as the model reads them"
    for sample in plan.samples:
        yield f"  {sample}"


def _words(plan: Plan) -> Iterator[str]:
    if not plan.words:
        return
    yield "label words"
    for word in plan.words[:SHOWN_WORDS]:
        yield f"  {word.label}: {word.word} ({word.told()})"
    if len(plan.words) > SHOWN_WORDS:
        yield f"  and {len(plan.words) - SHOWN_WORDS} more"


def _lengths(plan: Plan) -> Iterator[str]:
    read = sum(found.rows for found in plan.lengths)
    yield f"tokens per unlabelled row{f', of a sample of {read:,}' if read < plan.unlabelled else ''}"
    most = max(found.rows for found in plan.lengths)
    for found in plan.lengths:
        bar = "#" * -(-WIDTH * found.rows // most)
        yield f"  {found.shortest:>5} to {found.longest:<5} {bar} {found.rows:,}"


def _work(plan: Plan) -> Iterator[str]:
    phases = " + ".join(f"{count:,} {phase}" for phase, count in plan.student_steps.items())
    yield "steps"
    yield f"  teacher   {plan.teacher_steps:,}"
    yield f"  student   {phases}, in each of {plan.rounds} rounds"
    yield f"  in all    {plan.total_steps:,}, about {duration(plan.seconds)} of work on this machine"
