"""`listflow subspace` without its clothes: from finished runs to a folder that stage ipt can use.

OUT/subspace/  OUT/settings.json
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.errors import InputError
from pipeline.autoencoder import AutoEncoder
from pipeline.checkpoint import read_json, single_writer, verified, write_json
from pipeline.five_settings import Score, evaluate_settings
from pipeline.msf import MsfTick, all_prompts, find_subspace, spread_of
from pipeline.prompted_task import PromptedTask, open_tasks, origin_of
from pipeline.subspace import WHOLE, save_subspace
from pipeline.subspace_config import SubspaceConfig

SCORES = "settings.json"
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
) -> SubspaceOutcome:
    """Finds the subspace of the prompts of all runs in ``folders`` and keeps it in ``out``.

    ``evaluate`` adds the five settings, leave one task out. The same call again goes on, or returns what is there.
    InputError for runs that do not fit together, and for an ``out`` that holds something else.
    """
    _check_out(out)
    with open_tasks(folders) as tasks, single_writer(out):
        key = _key(tasks, config)
        done = verified(out / WHOLE)
        if done is not None and done["key"] != key:
            raise InputError(f"{out} holds a subspace of other runs or settings; choose a new folder.")
        if done is None:
            done = _find(tasks, out, config, key, on_step)
        scores = _scores(tasks, out, config, key, on_step) if evaluate else ()
    return SubspaceOutcome(
        out, done["tokens"], done["dim"], done["prompts"], tuple(done["tasks"]), done["unexplained"], scores
    )


def _find(
    tasks: Sequence[PromptedTask], out: Path, config: SubspaceConfig, key: str, on_step: OnStep
) -> dict[str, Any]:
    step_file = out / f"{key[:12]}.step"
    auto = find_subspace(tasks, config, step_file, lambda tick: on_step("", tick))
    prompts = all_prompts(tasks)
    facts = {"key": key, "config": config.model_dump(), "prompts": len(prompts), "unexplained": _missed(auto, prompts)}
    save_subspace(out, auto, prompts, origin_of(tasks, config.dim), facts)
    step_file.unlink(missing_ok=True)
    return verified(out / WHOLE) or {}


def _scores(
    tasks: Sequence[PromptedTask], out: Path, config: SubspaceConfig, key: str, on_step: OnStep
) -> tuple[Score, ...]:
    path = out / SCORES
    if not path.exists() or read_json(path)["key"] != key:
        scores = evaluate_settings(tasks, config, on_step)
        write_json(path, {"key": key, "scores": [asdict(score) for score in scores]})
    return tuple(Score(**score) for score in read_json(path)["scores"])


def _check_out(out: Path) -> None:
    known = {WHOLE, SCORES, ".lock"}
    strangers = [f.name for f in out.iterdir() if f.name not in known and f.suffix != ".step"] if out.is_dir() else []
    if strangers or out.is_file():
        raise InputError(f"{out} is no folder of a subspace; choose a new one.")


@torch.no_grad()
def _missed(auto: AutoEncoder, prompts: Tensor) -> float:
    return float((auto(prompts)[0] - prompts).square().mean() / spread_of(prompts))


def _key(tasks: Sequence[PromptedTask], config: SubspaceConfig) -> str:
    """What decides the subspace: its settings, and the models that bring the prompts."""
    models = [[task.run.weights_digest(number) for number in range(len(task.rounds))] for task in tasks]
    return hashlib.sha256(json.dumps([config.model_dump(), models], sort_keys=True).encode()).hexdigest()
