"""`listflow subspace` without its clothes: from finished runs to a folder that stage ipt can use.

OUT/subspace/  OUT/settings.json  OUT/folds/<number>-without-<task>/subspace/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from listflow.data.errors import InputError
from listflow.pipeline.five_settings import OnScore, Score, evaluate_settings
from listflow.pipeline.pretraining.msf import MsfTick
from listflow.pipeline.pretraining.prompted_tasks import PromptedTask, open_tasks
from listflow.pipeline.storage.checkpoint import read_json, single_writer, write_json
from listflow.pipeline.subspace import WHOLE
from listflow.pipeline.subspace_config import SubspaceConfig
from listflow.pipeline.subspace_keeping import keep_subspace, subspace_key

SCORES, FOLDS = "settings.json", "folds"
OnStep = Callable[[str, MsfTick], None]


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


def _check_out(out: Path) -> None:
    known = {WHOLE, SCORES, FOLDS, ".lock"}
    strangers = [f.name for f in out.iterdir() if f.name not in known and f.suffix != ".step"] if out.is_dir() else []
    if strangers or out.is_file():
        raise InputError(f"{out} is no folder of a subspace; choose a new one.")
