"""A run whose prompts were trained, as intrinsic prompt tuning sees it: texts, labels, and logits under any prompt.

Of a run of two views it is the prompt view alone; no text meets the text face.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import Backbone, load_backbone
from listflow.pipeline.backbone.batch import Batch, Encoded
from listflow.pipeline.backbone.placement import Place
from listflow.pipeline.model.classifier import Classifier, flat, logits_of
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.record import load_config
from listflow.pipeline.run.run import Run
from listflow.pipeline.run.views import unread
from listflow.pipeline.stages.config import PTuning
from listflow.pipeline.stages.ipt import Origin
from listflow.pipeline.storage.checkpoint import verified
from listflow.pipeline.training.committee import mixture_of
from listflow.pipeline.training.rounds import load_model

PROMPT = "stage.0.embedding"


@dataclass(frozen=True)
class PromptedTask:
    """A run of prompt tuning, and the model of each of its rounds as tensors; round 0 is from labels alone."""

    run: Run
    model: Classifier
    rounds: tuple[dict[str, Tensor], ...]

    @property
    def name(self) -> str:
        """The task's name: runs with other draws of labels share it."""
        return self.run.inputs.task.name

    @property
    def place(self) -> Place:
        """Where its pseudo tokens stand."""
        stage = self.run.config.stage[0]
        assert isinstance(stage, PTuning)
        return stage.place

    def prompts(self) -> Tensor:
        """(rounds, n, E): the trained prompt of every round."""
        return torch.stack([tensors[PROMPT] for tensors in self.rounds])

    def logits(self, number: int, prompt: Tensor, batch: Batch) -> Tensor:
        """(B, C), with the graph to ``prompt`` (n, E) and the rest of the model as round ``number`` trained it."""
        tensors = {**self.rounds[number], PROMPT: prompt}
        # The prompt is one module reachable by two paths, and swapping it at one of them is enough.
        found: Tensor = functional_call(self.model, tensors, (batch,), tie_weights=False)
        return found

    def accuracy(self, prompt: Tensor) -> float:
        """On the test rows, under ``prompt`` and the head of round 0."""
        self.model.load({**self.rounds[0], PROMPT: prompt.detach()})
        return accuracy(self.run, self.model)


@contextmanager
def open_tasks(folders: Sequence[Path]) -> Iterator[list[PromptedTask]]:
    """The runs in ``folders`` on one backbone that is loaded once, each locked while it is looked at.

    InputError for a run of another stage, backbone, prompt length, or without a trained teacher.
    """
    if not folders:
        raise InputError("no run is given; name the folders of runs with --stage soft_prompt or ptuning.")
    _check_distinct(folders)
    backbone: Backbone | None = None
    with ExitStack() as stack:
        tasks: list[PromptedTask] = []
        for folder in folders:
            config = load_config(folder)
            if len(config.stage) != 1 or not isinstance(config.stage[0], PTuning):
                raise InputError(f"{folder} has no prompt of its own; give runs with --stage soft_prompt or ptuning.")
            if backbone is None:
                backbone = load_backbone(config.backbone.name, config.backbone.precision, config.backbone.device)
            if config.backbone.name != backbone.name:
                raise InputError(
                    f"{folder} was trained on backbone '{config.backbone.name}' and others on '{backbone.name}'; "
                    "a subspace is of one backbone."
                )
            run = stack.enter_context(open_run(config, keep_features=False, backbone=backbone))
            tasks.append(_task(run))
        _check_lengths(tasks)
        _check_labels(tasks)
        if sum(len(task.rounds) for task in tasks) < 2:
            raise InputError(f"{folders[0]} brings one prompt, and one spans nothing; finish that run, or give more.")
        yield tasks


def origin_of(tasks: Sequence[PromptedTask], dim: int) -> Origin:
    """What a subspace with ``dim`` coordinates for the prompts of ``tasks`` fits."""
    backbone = tasks[0].run.backbone
    return Origin(
        tokens=tasks[0].prompts().shape[1], dim=dim, backbone=backbone.name, **backbone.identity().model_dump(),
        layouts=tuple(sorted({task.run.prompt.layout for task in tasks})),
        tasks=tuple(sorted({task.name for task in tasks})),
    )  # fmt: skip


def accuracy(run: Run, model: Classifier) -> float:
    """Of ``model`` on the run's test rows (a sample of them where the run says so); InputError without any."""
    test, gold = test_of(run)
    return float((logits_of(model, test).argmax(-1) == gold).float().mean())


def test_of(run: Run) -> tuple[Encoded, Tensor]:
    """(encoded rows, gold classes) that a run's students are measured on; InputError where there are none."""
    if run.test is None or run.test_gold is None:
        raise InputError(f"{run.folder} has no test rows to measure prompts on; start that run with --test.")
    rows = run.test_sample(1)
    return (run.test, run.test_gold) if rows is None else (run.test.take(rows), run.test_gold[rows])


def _task(run: Run) -> PromptedTask:
    _check_say(run)
    numbers = [n for n in range(run.config.rounds.count + 1) if verified(run.round(n).model)]
    if not numbers or numbers[0] != 0:
        raise InputError(f"{run.folder} has no trained teacher yet; finish it with `listflow resume {run.folder}`.")
    found = [flat(load_model(run, number), run.config.stage) for number in numbers]
    model = Classifier(run.backbone, found[0][0], run.config.head, run.word_ids)
    return PromptedTask(run, model, tuple(tensors for _, tensors in found))


def _check_say(run: Run) -> None:
    """InputError where a run of two views does without its prompt, or does not know that yet."""
    first, *others = unread(run)
    if not others:
        return
    if verified(run.round(0).committee) is None:
        raise InputError(f"{run.folder} has not weighed its views yet; finish it with `listflow resume {run.folder}`.")
    if first.view not in {voice.view for voice in mixture_of(replace(first, others=tuple(others))).heard}:
        raise InputError(
            f"the prompt of {run.folder} has no say beside its text view, so that no student trained one; give runs of "
            "the prompt alone, as --stage soft_prompt and ptuning make them."
        )


def _check_distinct(folders: Sequence[Path]) -> None:
    named: set[Path] = set()
    for folder in folders:
        if (whole := Path(folder).resolve()) in named:
            raise InputError(f"{folder} is given twice; name every run once.")
        named.add(whole)


def _check_lengths(tasks: Sequence[PromptedTask]) -> None:
    lengths = {task.prompts().shape[1]: task.run.folder for task in tasks}
    if len(lengths) > 1:
        told = ", ".join(f"{length} in {folder}" for length, folder in sorted(lengths.items()))
        raise InputError(f"the prompts of these runs differ in length ({told}); a subspace is of one length.")


def _check_labels(tasks: Sequence[PromptedTask]) -> None:
    """Runs of one task's name count as draws of that task."""
    first: dict[str, PromptedTask] = {}
    for task in tasks:
        other = first.setdefault(task.name, task)
        if task.run.labels != other.run.labels:
            raise InputError(
                f"{other.run.folder} and {task.run.folder} are both of task '{task.name}' and have other labels; "
                "give each task a name of its own, in a file for --task."
            )
