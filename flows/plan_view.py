"""A plan as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape

from listflow.pipeline.run.wording import trained
from listflow.pipeline.training.plan import Plan
from listflow.pipeline.wording import duration

WIDTH, SHOWN_WORDS = 40, 20


def show_plan(plan: Plan, console: Console) -> None:
    """Prints ``plan``: facts, prompts, label words where they are read, lengths, steps and time."""
    for line in (*_facts(plan), *_prompts(plan), *_words(plan), *_lengths(plan), *_work(plan)):
        console.print(line, soft_wrap=True, highlight=False)


def _facts(plan: Plan) -> Iterator[str]:
    yield f"[bold]{escape(plan.task)}[/]"
    yield f"  rows      {plan.labelled:,} labelled, {plan.unlabelled:,} unlabelled, {plan.test:,} test"
    yield f"  backbone  {escape(plan.backbone)}, {plan.backbone_parameters:,} parameters, frozen"
    yield f"  trained   {escape(_trained(plan))}"
    yield f"  kept in   {escape(plan.folder)}{' (begun; a run would go on there)' if plan.started else ''}"
    for notice in plan.notices:
        yield f"  note      {escape(notice)}"


def _trained(plan: Plan) -> str:
    return trained(plan.stage, plan.head, plan.trainable_parameters, plan.backbone_parameters)


def _prompts(plan: Plan) -> Iterator[str]:
    yield "[bold]prompts, as the model reads them[/]"
    for sample in plan.samples:
        yield f"  {escape(sample)}"


def _words(plan: Plan) -> Iterator[str]:
    if not plan.words:
        return
    yield "[bold]label words[/]"
    for word in plan.words[:SHOWN_WORDS]:
        yield f"  {escape(word.label)}: {escape(word.word)} (token {word.token})"
    if len(plan.words) > SHOWN_WORDS:
        yield f"  and {len(plan.words) - SHOWN_WORDS} more"


def _lengths(plan: Plan) -> Iterator[str]:
    yield "[bold]tokens per unlabelled row[/]"
    most = max(found.rows for found in plan.lengths)
    for found in plan.lengths:
        bar = "#" * -(-WIDTH * found.rows // most)
        yield f"  {found.shortest:>5} to {found.longest:<5} {bar} {found.rows:,}"


def _work(plan: Plan) -> Iterator[str]:
    phases = " + ".join(f"{count:,} {phase}" for phase, count in plan.student_steps.items())
    yield "[bold]steps[/]"
    yield f"  teacher   {plan.teacher_steps:,}"
    yield f"  student   {phases}, in each of {plan.rounds} rounds"
    yield f"  in all    {plan.total_steps:,}, about {duration(plan.seconds)} on this machine"
