"""Finding a subspace: a loss of what it says, and the same bytes again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from prompt_runs import SMALL
from torch import Tensor

from listflow.pipeline.backbone.batch import Batch
from listflow.pipeline.pretraining.msf import SubspaceConfig, all_prompts, find_subspace
from listflow.pipeline.pretraining.prompted_tasks import PromptedTask, open_tasks
from listflow.pipeline.pretraining.subspace import make_subspace
from listflow.pipeline.stages.ipt import AutoEncoder

pytest_plugins = ["prompt_fixtures"]


def test_enough_coordinates_hold_all_prompts(runs: list[Path]) -> None:
    with open_tasks(runs) as tasks:
        enough = len(all_prompts(tasks))
        config = SubspaceConfig(dim=enough, hidden=64, steps=1500, prompts=enough, task_weight=0, learning_rate=3e-3)
        prompts = all_prompts(tasks)
        made = find_subspace(tasks, config)(prompts)[0]
    assert float((made - prompts).norm() / prompts.norm()) < 1e-2


def test_either_term_of_the_loss_can_be_off(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    logits = PromptedTask.logits

    def counted(task: PromptedTask, number: int, *rest: object) -> torch.Tensor:
        asked.append(number)
        return logits(task, number, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(PromptedTask, "logits", counted)
    with open_tasks(runs) as tasks:
        find_subspace(tasks, SMALL.model_copy(update={"task_weight": 0.0}))
        assert not asked
        one = find_subspace(tasks, SMALL.model_copy(update={"reconstruction_weight": 0.0})).state_dict()
        assert len(asked) == SMALL.steps
        both = find_subspace(tasks, SMALL).state_dict()
    assert not all(torch.equal(one[name], both[name]) for name in one)


def stand_in(monkeypatch: pytest.MonkeyPatch, made: Callable[[Tensor], Tensor]) -> None:
    """Lets every auto-encoder make of prompts what ``made`` says, whatever it learns."""

    def forward(auto: AutoEncoder, prompts: Tensor) -> tuple[Tensor, Tensor]:
        z = auto.encode(prompts)
        return made(prompts) + 0 * z.sum(), z

    monkeypatch.setattr(AutoEncoder, "forward", forward)


def test_a_prompt_is_scored_in_the_task_and_round_that_it_comes_from(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another task's labels and head would say nothing about it."""
    stand_in(monkeypatch, lambda prompts: prompts)
    seen: list[tuple[Path, int]] = []
    logits = PromptedTask.logits

    def checked(task: PromptedTask, number: int, prompt: Tensor, batch: Batch) -> Tensor:
        assert torch.equal(prompt, task.prompts()[number])
        seen.append((task.run.folder, number))
        return logits(task, number, prompt, batch)

    monkeypatch.setattr(PromptedTask, "logits", checked)
    with open_tasks(runs) as tasks:
        find_subspace(tasks, SMALL)
    assert len(seen) == SMALL.steps
    assert {folder for folder, _ in seen} == set(runs)


def test_the_error_is_a_share_of_the_prompts_variance(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who knows no more than the mean of all prompts misses all of their variance."""
    stand_in(monkeypatch, lambda prompts: prompts.mean(0).expand_as(prompts))
    losses: list[float] = []
    config = SMALL.model_copy(update={"task_weight": 0.0, "reconstruction_weight": 3.0, "prompts": 100})
    outcome = make_subspace(runs, tmp_path / "space", config, on_step=lambda name, tick: losses.append(tick.loss))
    assert losses == pytest.approx([3.0] * SMALL.steps)
    assert outcome.unexplained == pytest.approx(1.0)


def test_a_loss_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing would be learned"):
        SubspaceConfig(task_weight=0, reconstruction_weight=0)


def test_the_same_runs_give_the_same_subspace_also_when_interrupted(runs: list[Path], tmp_path: Path) -> None:
    with open_tasks(runs) as tasks:
        config = SMALL.model_copy(update={"steps": 210})
        whole = find_subspace(tasks, config).state_dict()

        class StopError(Exception):
            pass

        def stop(tick: object) -> None:
            if tick.step == 205:  # type: ignore[attr-defined]
                raise StopError

        with pytest.raises(StopError):
            find_subspace(tasks, config, tmp_path / "s.step", stop)
        steps: list[int] = []
        resumed = find_subspace(tasks, config, tmp_path / "s.step", lambda tick: steps.append(tick.step)).state_dict()
    assert steps[0] == 201
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
