"""A dry run: what a run would do and how long it would take, with nothing trained and nothing kept."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch

from listflow.pipeline.model.classifier import logits_of
from listflow.pipeline.model.label_names import label_words
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.feature_cache import keeps_features, with_kept_features
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.run import Run
from listflow.pipeline.run.views import glimpse, unread
from listflow.pipeline.run.wording import name_of, name_of_head
from listflow.pipeline.storage.run_folder import RunFolder, default_folder
from listflow.pipeline.training.models import FOLDS, student_recipe, teacher_recipe
from listflow.pipeline.training.trainer import Material, Phase, Recipe, Tick, Trainer

SAMPLE_ROWS, TIMED_ROWS, TIMED_STEPS, BINS = 5, 256, 5, 8
Found = TypeVar("Found")
Steps = dict[Phase, int]


@dataclass(frozen=True)
class Word:
    """A label, its label word, and the word's token id; its pieces, as `card + arrival`, where it is not one token.

    No pieces for a word that the backbone does not know.
    """

    label: str
    word: str
    token: int | str

    def told(self) -> str:
        """What the word is to the backbone: `token 6`, `tokens card + arrival`, or `not known`."""
        if isinstance(self.token, int):
            return f"token {self.token}"
        return f"tokens {self.token}" if self.token else "not known"


@dataclass(frozen=True)
class LengthBin:
    """How many unlabelled rows that the rounds read have ``shortest`` to ``longest`` tokens, template included."""

    shortest: int
    longest: int
    rows: int


def trainable_parameters(run: Run) -> int:
    """Parameters that a teacher or student trains, of all views."""
    views = run.views if run.others else unread(run)
    return sum(tensor.numel() for view in views for tensor in view.new_classifier(0, None).tunable().values())


@dataclass(frozen=True)
class Plan:
    """What a run would do. ``seconds`` is an estimate from a few steps at real lengths on this machine.

    ``stage``, ``head``, prompts and steps are the first view's; ``second`` says what a second one is. ``unknown`` is
    the share of tokens that the backbone does not know, by kind of rows.
    """

    task: str
    folder: str
    started: bool
    backbone: str
    backbone_parameters: int
    trainable_parameters: int
    labelled: int
    unlabelled: int
    test: int
    samples: tuple[str, ...]
    words: tuple[Word, ...]  # none where the head reads none
    lengths: tuple[LengthBin, ...]
    rounds: int
    teacher_steps: int
    student_steps: dict[Phase, int]
    seconds: float
    notices: tuple[str, ...]
    stage: str
    head: str
    second: str = ""
    unknown: dict[str, float] = field(default_factory=dict)

    @property
    def total_steps(self) -> int:
        return self.teacher_steps + self.rounds * sum(self.student_steps.values())


def make_plan(config: RunConfig) -> Plan:
    """The plan for ``config``. InputError for every input that a run would refuse."""
    with TemporaryDirectory() as scratch, _looked_at(config, scratch) as run:
        teacher, student = steps_of(run)
        folder = Path(config.run_dir) if config.run_dir else default_folder(run.inputs.task.name, run.fingerprint)
        return Plan(
            task=run.inputs.task.name, folder=str(folder), started=RunFolder(folder).config.exists(),
            backbone=run.backbone.name, backbone_parameters=run.backbone.parameter_count(),
            trainable_parameters=trainable_parameters(run), labelled=len(run.gold), unlabelled=run.inputs.built.rows,
            test=len(run.inputs.test), samples=_samples(run), words=_words(run), lengths=_lengths(run),
            rounds=config.rounds.count, teacher_steps=teacher, student_steps=student,
            seconds=_estimate(run, teacher, student), notices=run.notices,
            stage=name_of(run.config.stage), head=name_of_head(run.config.head), second=_second(run.config),
            unknown=run.unknown,
        )  # fmt: skip


def _second(config: RunConfig) -> str:
    return "" if config.second is None else name_of_head(config.second.head)


def _looked_at(config: RunConfig, scratch: str) -> AbstractContextManager[Run]:
    own = config.backbone.model_copy(update={"cache_dir": ""})  # a few rows are not worth sharing
    return open_run(config.model_copy(update={"run_dir": scratch, "backbone": own}), keep_features=False)


def steps_of(run: Run) -> tuple[int, Steps]:
    """(steps of the teacher, steps of a student by phase)."""
    student = student_recipe(run, 1, rows_per_round(run))
    return teacher_recipe(run, len(run.gold)).steps, dict(student.phases)


def rows_per_round(run: Run) -> int:
    """Unlabelled rows that a round draws."""
    return min(len(run.corpus), run.config.student.steps * run.config.student.batch)


def _samples(run: Run) -> tuple[str, ...]:
    rows = run.corpus.batch(np.arange(min(SAMPLE_ROWS, len(run.corpus))))
    real = (ids[seen.bool()] for ids, seen in zip(rows.ids, rows.attention, strict=True))
    return tuple(run.prompt.spell(ids.tolist()) for ids in real)


def _words(run: Run) -> tuple[Word, ...]:
    if not run.config.head.reads_words:
        return ()
    tokenizer, task = run.backbone.tokenizer, run.inputs.task
    named = zip(task.labels, label_words(task, tokenizer), run.word_ids, strict=True)
    return tuple(Word(label, word, _token(tokenizer, ids)) for label, word, ids in named)


def _token(tokenizer: Any, ids: Sequence[int]) -> int | str:
    return ids[0] if len(ids) == 1 else " + ".join(tokenizer.convert_ids_to_tokens(list(ids)))


def _lengths(run: Run) -> tuple[LengthBin, ...]:
    lengths = run.corpus.lengths()
    edges = np.unique(np.linspace(lengths.min(), lengths.max() + 1, BINS + 1).astype(int))
    counts = np.histogram(lengths, edges)[0].tolist()
    pairs = zip(edges[:-1].tolist(), edges[1:].tolist(), counts, strict=True)
    return tuple(LengthBin(low, high - 1, rows) for low, high, rows in pairs)


def _estimate(run: Run, teacher: int, student: Steps) -> float:
    """Seconds for all steps and all forward passes, at what a few of them take now."""
    config, sample, tests = run.config.rounds, len(run.sample()), len(run.inputs.test)
    few, beside, a_text = replace(run, corpus=run.corpus.take(_spread(run, TIMED_ROWS)), test=None), 0.0, 0.0
    for view in unread(run):
        if view.config.face == "text":
            few, beside, a_text = _text(view, few)
    if run.config.face == "prompt" and keeps_features(run):
        few, seconds = _timed(lambda: with_kept_features(few))
        a_row = seconds / (len(few.corpus) + len(few.gold))
        beside, a_text = beside + a_row * (len(run.corpus) + len(run.gold) + tests), a_text + a_row
    per_row, per_step = _seconds_per_row(few), _seconds_per_step(few, student)
    held_out = run.config.mixture.folds if run.config.second else FOLDS if config.promote == "gated" else 0
    teachers = teacher * (1 + held_out)
    a_round = sum(count * per_step[phase] for phase, count in student.items() if count)
    seen = min(tests, config.test_rows or tests)
    built = run.inputs.built
    rows = sample + seen + 2 * tests + config.count * (rows_per_round(run) + sample + seen) + built.rows
    # What is not in the pool is read once, to be labelled, and nothing of it is kept.
    beside += a_text * built.rows if built.is_sample else 0
    return beside + teachers * per_step["labelled"] + config.count * a_round + rows * per_row


def _text(view: Run, few: Run) -> tuple[Run, float, float]:
    """(``few`` of the run, which is the text view itself where it is the only one; seconds that view adds; those of
    reading a row).
    """
    rows = _spread(view, TIMED_ROWS)
    seen, seconds = _timed(lambda: glimpse(view, rows))
    a_row = seconds / (len(rows) + len(view.gold))
    beside = a_row * (len(view.corpus) + len(view.gold) + len(view.inputs.test))
    if not view.suffix:
        return seen, beside, a_row
    steps = dict(student_recipe(seen, 1, rows_per_round(view)).phases)
    per_step = _seconds_per_step(seen, steps)
    a_round = sum(count * per_step[phase] for phase, count in steps.items() if count)
    return few, beside + view.config.rounds.count * a_round, a_row


def _seconds_per_row(few: Run) -> float:
    model = few.new_classifier(0, None)
    logits_of(model, few.corpus)
    return _timed(lambda: logits_of(model, few.corpus))[1] / len(few.corpus)


def _timed(work: Callable[[], Found]) -> tuple[Found, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def _seconds_per_step(few: Run, student: Steps) -> dict[Phase, float]:
    teacher, recipe = teacher_recipe(few, len(few.gold)), student_recipe(few, 1, len(few.corpus))
    labelled = Material(few.labelled, few.gold, few.corpus)
    soft = torch.full((len(few.corpus), len(few.labels)), 1 / len(few.labels))
    pseudo = Material(few.labelled, few.gold, few.corpus, soft)
    found: dict[Phase, float] = {"labelled": _seconds_of(few, teacher, "labelled", labelled)}
    for phase, count in student.items():
        if count:
            found[phase] = _seconds_of(few, recipe, phase, labelled if phase == "tail" else pseudo)
    return found


def _seconds_of(run: Run, recipe: Recipe, phase: Phase, material: Material) -> float:
    """What a step of ``phase`` takes, on a classifier that is thrown away."""
    trainer = Trainer(run.new_classifier(0, None), replace(recipe, phases=((phase, TIMED_STEPS),)), material)
    ends: list[float] = []

    def on_step(tick: Tick) -> None:
        ends.append(time.perf_counter())

    trainer.run(on_step)
    # The first step is left out: it pays for what is made only once.
    return statistics.median(np.diff(ends).tolist())


def _spread(run: Run, count: int) -> np.ndarray:
    """Rows from all over the corpus, as a round would draw them."""
    return np.unique(np.linspace(0, len(run.corpus) - 1, min(count, len(run.corpus))).astype(int))
