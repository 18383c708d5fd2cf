"""A subspace that is found once: the same call again goes on where that stopped, or returns what is there.

FOLDER/subspace/  and, while it is being found, FOLDER/<key>.step
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from listflow.data.errors import InputError
from listflow.pipeline.autoencoder import AutoEncoder
from listflow.pipeline.pretraining.msf import MsfTick, all_prompts, find_subspace, spread_of
from listflow.pipeline.pretraining.prompted_tasks import PromptedTask, origin_of
from listflow.pipeline.storage.checkpoint import verified
from listflow.pipeline.subspace import WHOLE, save_subspace
from listflow.pipeline.subspace_config import SubspaceConfig


def keep_subspace(
    tasks: Sequence[PromptedTask], folder: Path, config: SubspaceConfig, on_step: Callable[[MsfTick], None]
) -> dict[str, Any]:
    """The manifest of the subspace of all prompts of ``tasks``, which lies in ``folder`` afterwards.

    InputError for a ``folder`` with the subspace of other runs or settings.
    """
    key = subspace_key(tasks, config)
    done = verified(folder / WHOLE)
    if done is None:
        return _find(tasks, folder, config, key, on_step)
    if done["key"] != key:
        raise InputError(f"{folder} holds a subspace of other runs or settings; choose a new folder.")
    return done


def subspace_key(tasks: Sequence[PromptedTask], config: SubspaceConfig) -> str:
    """What decides the subspace: its settings, and the models that bring the prompts."""
    models = [[task.run.weights_digest(number) for number in range(len(task.rounds))] for task in tasks]
    return hashlib.sha256(json.dumps([config.model_dump(), models], sort_keys=True).encode()).hexdigest()


def _find(
    tasks: Sequence[PromptedTask], folder: Path, config: SubspaceConfig, key: str, on_step: Callable[[MsfTick], None]
) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    step_file = folder / f"{key[:12]}.step"
    auto = find_subspace(tasks, config, step_file, on_step)
    prompts = all_prompts(tasks)
    facts = {"key": key, "config": config.model_dump(), "prompts": len(prompts), "unexplained": _missed(auto, prompts)}
    save_subspace(folder, auto, prompts, origin_of(tasks, config.dim), facts)
    step_file.unlink(missing_ok=True)
    return verified(folder / WHOLE) or {}


@torch.no_grad()
def _missed(auto: AutoEncoder, prompts: Tensor) -> float:
    return float((auto(prompts)[0] - prompts).square().mean() / spread_of(prompts))
