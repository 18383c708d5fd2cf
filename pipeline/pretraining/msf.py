"""Multi-task subspace finding: an auto-encoder over the trained prompts of many tasks (arXiv 2110.07867, eq. 2).

Loss of a step: the task loss under one reconstructed prompt, and the squared error of a batch of them. The authors
weigh the mean squared error by 200 beside a summed task loss, which ties that number to batch and text length; here
both are means, and the error is a share of the prompts' variance.

A subspace is found once: the same call again goes on where that stopped, or returns what is there.

FOLDER/subspace/  and, while it is being found, FOLDER/<key>.step
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from listflow.data.errors import InputError
from listflow.data.schema import Section
from listflow.pipeline.method.sampling import generator_for, seed_for
from listflow.pipeline.pretraining.prompted_tasks import PromptedTask, origin_of
from listflow.pipeline.pretraining.steps import restore_steps, save_steps, warmed_rate
from listflow.pipeline.stages.ipt import WHOLE, AutoEncoder, save_subspace
from listflow.pipeline.storage.checkpoint import verified

WARMUP = 0.06  # share of the steps
CHECKPOINT_EVERY = 200  # steps


class SubspaceConfig(Section):
    """Multi-task subspace finding (arXiv 2110.07867, section 3.2): size of the auto-encoder and its training."""

    dim: int = Field(50, ge=1, le=2000, description="coordinates d_I of a prompt")
    hidden: int = Field(768, ge=1, le=8192, description="width of the decoder")
    steps: int = Field(2000, ge=1, le=10_000_000, description="optimiser steps")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="peak, after a warm-up over 6 % of the steps")
    prompts: int = Field(16, ge=1, le=4096, description="prompts that are reconstructed in a step")
    batch: int = Field(16, ge=1, le=1024, description="labelled rows of one of them in a step")
    task_weight: float = Field(1.0, ge=0, le=1000, description="of the task loss under reconstructed prompts")
    reconstruction_weight: float = Field(
        1.0, ge=0, le=1000, description="of the squared error, as a share of the prompts' variance"
    )
    clip: float = Field(1.0, gt=0, description="global gradient norm")
    seed: int = Field(1, ge=0, le=2**31)

    @model_validator(mode="after")
    def _learns_something(self) -> SubspaceConfig:
        if not self.task_weight and not self.reconstruction_weight:
            raise ValueError("task_weight and reconstruction_weight are both 0: nothing would be learned")
        return self


@dataclass(frozen=True)
class MsfTick:
    """One finished step, for whoever shows progress."""

    step: int
    steps: int
    loss: float


def find_subspace(
    tasks: Sequence[PromptedTask],
    config: SubspaceConfig,
    step_file: Path | None = None,
    on_step: Callable[[MsfTick], None] = lambda tick: None,
) -> AutoEncoder:
    """The auto-encoder for the prompts of all rounds of ``tasks``, frozen; same input, same bytes (CPU).

    With a ``step_file`` an interrupted training goes on where that was last written.
    """
    places = [(task, number) for task in tasks for number in range(len(task.rounds))]
    prompts = all_prompts(tasks)
    auto, spread = _fresh(config, prompts), spread_of(prompts)
    parameters = dict(auto.named_parameters())
    optimiser = torch.optim.AdamW(parameters.values(), lr=config.learning_rate, weight_decay=0.0)
    begin = restore_steps(step_file, parameters, optimiser) if step_file else 0
    for step in range(begin, config.steps):
        optimiser.param_groups[0]["lr"] = config.learning_rate * warmed_rate(step, config.steps, WARMUP)
        rng = generator_for(config.seed, "subspace", step)
        rows = rng.choice(len(prompts), size=min(config.prompts, len(prompts)), replace=False)
        optimiser.zero_grad(set_to_none=True)
        made, _ = auto(prompts[rows])
        loss = config.reconstruction_weight * (made - prompts[rows]).square().mean() / spread
        if config.task_weight:
            loss = loss + config.task_weight * _task_loss(places[rows[0]], made[0], config.batch, rng)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters.values(), config.clip)
        optimiser.step()
        if step_file and (step + 1) % CHECKPOINT_EVERY == 0:
            save_steps(step_file, step + 1, parameters, optimiser)
        on_step(MsfTick(step + 1, config.steps, loss.item()))
    return auto.requires_grad_(False)


def _fresh(config: SubspaceConfig, prompts: Tensor) -> AutoEncoder:
    """torch's own start, from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(config.seed, "subspace"))
        return AutoEncoder(config.dim, config.hidden, *prompts.shape[1:])


def _task_loss(place: tuple[PromptedTask, int], prompt: Tensor, batch: int, rng: np.random.Generator) -> Tensor:
    """Cross-entropy of labelled rows under ``prompt`` (n, E), with the graph to it; ``place``: a task and its round."""
    task, number = place
    gold, device = task.run.gold, task.run.backbone.device
    rows = np.sort(rng.choice(len(gold), size=min(batch, len(gold)), replace=False))
    logits = task.logits(number, prompt.to(device), task.run.labelled.batch(rows).to(device))
    return F.cross_entropy(logits, gold[rows].to(device)).cpu()


def all_prompts(tasks: Sequence[PromptedTask]) -> Tensor:
    """(N, n, E): the prompts of all rounds of all ``tasks``, in their order."""
    return torch.cat([task.prompts() for task in tasks])


def spread_of(prompts: Tensor) -> Tensor:
    """The variance of prompts (N, n, E) around their mean, a scalar above 0."""
    return (prompts - prompts.mean(0)).square().mean().clamp_min(1e-12)


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
    """The share of the variance of ``prompts`` (N, n, E) that is lost in the subspace."""
    return float((auto(prompts)[0] - prompts).square().mean() / spread_of(prompts))
