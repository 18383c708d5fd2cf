"""Multi-task subspace finding: an auto-encoder over the trained prompts of many tasks (arXiv 2110.07867, eq. 2).

Loss of a step: the task loss under one reconstructed prompt, and the squared error of a batch of them. The authors
weigh the mean squared error by 200 beside a summed task loss, which ties that number to batch and text length; here
both are means, and the error is a share of the prompts' variance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from listflow.pipeline.autoencoder import AutoEncoder
from listflow.pipeline.pretraining.prompted_tasks import PromptedTask
from listflow.pipeline.pretraining.steps import restore_steps, save_steps, warmed_rate
from listflow.pipeline.seeds import generator_for, seed_for
from listflow.pipeline.subspace_config import SubspaceConfig

WARMUP = 0.06
CHECKPOINT_EVERY = 200


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


def all_prompts(tasks: Sequence[PromptedTask]) -> Tensor:
    """(N, n, E): the prompts of all rounds of all ``tasks``, in their order."""
    return torch.cat([task.prompts() for task in tasks])


def spread_of(prompts: Tensor) -> Tensor:
    """The variance of prompts (N, n, E) around their mean, a scalar above 0."""
    return (prompts - prompts.mean(0)).square().mean().clamp_min(1e-12)


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
