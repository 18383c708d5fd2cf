"""`listflow subspace` without its clothes: from finished runs to a folder that stage ipt can use.

OUT/subspace/  OUT/settings.json  OUT/folds/<number>-without-<task>/subspace/

How good a subspace is, is said by the five evaluation settings of intrinsic prompt tuning, leave one task out
(arXiv 2110.07867, section 4). For every task in turn a subspace is found on the other tasks alone. The first run of a
task brings the prompts that a subspace is made of; its further runs, with other draws of labels, are unseen data of a
seen task.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean

import torch

from listflow.data.errors import InputError
from listflow.pipeline.pretraining.msf import MsfTick, SubspaceConfig, keep_subspace, subspace_key
from listflow.pipeline.pretraining.prompted_tasks import PromptedTask, accuracy, open_tasks
from listflow.pipeline.stages.config import Intrinsic
from listflow.pipeline.stages.ipt import WHOLE, AutoEncoder, load_auto_encoder, pinned
from listflow.pipeline.storage.checkpoint import read_json, single_writer, write_json
from listflow.pipeline.training.models import teacher_recipe
from listflow.pipeline.training.trainer import Material, Trainer

SETTINGS = {
    "T_train (MSF)": "known prompts, encoded and decoded: what the auto-encoder holds",
    "T_test (MSF)": "prompts of the unseen task, encoded and decoded: what the subspace covers",
    "T_train same (IST)": "coordinates trained on known tasks: how well they can be found",
    "T_train diff (IST)": "the same with other labelled rows: unseen data",
    "T_test (IST)": "coordinates trained on the unseen task",
}
SCORES, FOLDS = "settings.json", "folds"
# The task that is left out ("" for none), and the step.
OnStep = Callable[[str, MsfTick], None]
# The task that is left out, how many of its scores there are, and of how many.
OnScore = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SubspaceOutcome:
    """A subspace on disk: how many prompts it was found on, and the share of their variance that it misses."""

    folder: Path
    tokens: int
    dim: int
    prompts: int
    tasks: tuple[str, ...]
    unexplained: float
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class Score:
    """Accuracy of one run in one setting, beside that of its own prompt tuned in full."""

    setting: str
    held_out: str
    run: str
    accuracy: float
    reference: float


def make_subspace(
    folders: Sequence[Path],
    out: Path,
    config: SubspaceConfig,
    evaluate: bool = False,
    on_step: OnStep = lambda name, tick: None,
    on_score: OnScore = lambda name, count, total: None,
) -> SubspaceOutcome:
    """Finds the subspace of the prompts of all runs in ``folders`` and keeps it in ``out``.

    ``evaluate`` adds the five settings, leave one task out; the subspace without a task stays in ``out``/folds. The
    same call again goes on, or returns what is there. InputError for runs that do not fit together, and for an
    ``out`` that holds something else.
    """
    _check_out(out)
    with open_tasks(folders) as tasks, single_writer(out):
        done = keep_subspace(tasks, out, config, partial(on_step, ""))
        scores = _scores(tasks, out, config, on_step, on_score) if evaluate else ()
    return SubspaceOutcome(
        out, done["tokens"], done["dim"], done["prompts"], tuple(done["tasks"]), done["unexplained"], scores
    )


def _check_out(out: Path) -> None:
    known = {WHOLE, SCORES, FOLDS, ".lock"}
    strangers = [f.name for f in out.iterdir() if f.name not in known and f.suffix != ".step"] if out.is_dir() else []
    if strangers or out.is_file():
        raise InputError(f"{out} is no folder of a subspace; choose a new one.")


def _scores(
    tasks: Sequence[PromptedTask], out: Path, config: SubspaceConfig, on_step: OnStep, on_score: OnScore
) -> tuple[Score, ...]:
    key = subspace_key(tasks, config)
    for scores in evaluate_settings(tasks, out / FOLDS, config, _known_scores(out, key), on_step, on_score):
        write_json(out / SCORES, {"key": key, "scores": [asdict(score) for score in scores]})
    return _known_scores(out, key)


def _known_scores(out: Path, key: str) -> tuple[Score, ...]:
    """Those of the same runs and settings, of all tasks that were left out so far."""
    path = out / SCORES
    kept = read_json(path) if path.exists() else {}
    return tuple(Score(**score) for score in kept["scores"]) if kept.get("key") == key else ()


def evaluate_settings(
    tasks: Sequence[PromptedTask],
    folder: Path,
    config: SubspaceConfig,
    known: Sequence[Score] = (),
    on_step: OnStep = lambda name, tick: None,
    on_score: OnScore = lambda name, count, total: None,
) -> Iterator[list[Score]]:
    """After each task that was left out, the scores so far; tasks left out in ``known`` are not measured again.

    The subspace without a task stays in ``folder``. InputError for fewer than two tasks, or runs without test rows.
    """
    names = sorted({task.name for task in tasks})
    if len(names) < 2:
        raise InputError(f"all runs are of task '{names[0]}'; an unseen task needs runs of at least two tasks.")
    references: dict[int, float] = {}
    found = list(known)
    for number, name in enumerate(names, 1):
        if name in {score.held_out for score in known}:
            continue
        references = references or {id(task): task.accuracy(task.prompts()[0]) for task in tasks}
        fold = _Fold.of(tasks, name)
        space = folder / f"{number}-without-{re.sub('[^A-Za-z0-9.-]+', '_', name)}"
        keep_subspace(fold.known, space, config, partial(on_step, name))
        due = fold.measures(space)
        for count, (setting, task, measure) in enumerate(due, 1):
            found.append(Score(setting, name, str(task.run.folder), measure(task), references[id(task)]))
            on_score(name, count, len(due))
        yield found


@dataclass(frozen=True)
class _Fold:
    """The runs by their part in a fold: what the subspace is made of, other draws of these tasks, the unseen task."""

    known: list[PromptedTask]
    other_draws: list[PromptedTask]
    unseen: list[PromptedTask]

    @staticmethod
    def of(tasks: Sequence[PromptedTask], held_out: str) -> _Fold:
        """The fold in which the task named ``held_out`` is the unseen one."""
        fold = _Fold([], [], [])
        for task in tasks:
            if task.name == held_out:
                fold.unseen.append(task)
            elif task.name in {known.name for known in fold.known}:
                fold.other_draws.append(task)
            else:
                fold.known.append(task)
        return fold

    def measures(self, space: Path) -> list[tuple[str, PromptedTask, Callable[[PromptedTask], float]]]:
        """(setting, run, what gives its accuracy) of all runs in all settings, with the subspace in ``space``."""
        rebuilt, moved = partial(_rebuilt, load_auto_encoder(space)), partial(tuned, subspace=space)
        parts = {
            "T_train (MSF)": (rebuilt, self.known),
            "T_test (MSF)": (rebuilt, self.unseen),
            "T_train same (IST)": (moved, self.known),
            "T_train diff (IST)": (moved, self.other_draws),
            "T_test (IST)": (moved, self.unseen),
        }
        return [(setting, task, measure) for setting, (measure, runs) in parts.items() for task in runs]


@torch.no_grad()
def _rebuilt(auto: AutoEncoder, task: PromptedTask) -> float:
    """Accuracy of the teacher of ``task`` under its own prompt, encoded and decoded."""
    return task.accuracy(auto(task.prompts()[0])[0])


def tuned(task: PromptedTask, subspace: Path) -> float:
    """Accuracy of a teacher of the run's own recipe whose prompt moves within ``subspace``."""
    stage = Intrinsic(subspace=str(subspace), tokens=task.prompts().shape[1], place=task.place)
    run = replace(task.run, config=task.run.config.model_copy(update={"stage": (pinned(stage),)}))
    model = run.new_classifier(0, None)
    Trainer(model, teacher_recipe(run, len(run.gold)), Material(run.labelled, run.gold)).run()
    return accuracy(run, model)


def relative(scores: Sequence[Score]) -> float | None:
    """E_rel: the mean of E_i / E*_i over ``scores`` with a reference above 0; None without any."""
    ratios = [score.accuracy / score.reference for score in scores if score.reference > 0]
    return mean(ratios) if ratios else None
