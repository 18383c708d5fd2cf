"""Finding a subspace: an auto-encoder of the right size, a loss of what it says, the same bytes again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from prompt_runs import DIM, SMALL, TOKENS, prompt_run
from tiny import tiny_overlay
from torch import Tensor

from listflow.data.errors import InputError
from listflow.pipeline.backbone.batch import Batch
from listflow.pipeline.pretraining.msf import SubspaceConfig, all_prompts, find_subspace
from listflow.pipeline.pretraining.prompted_tasks import PromptedTask, open_tasks
from listflow.pipeline.pretraining.subspace import make_subspace
from listflow.pipeline.run.config import build_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.stages.ipt import AutoEncoder, Decoder
from listflow.pipeline.training.rounds import load_model

pytest_plugins = ["prompt_fixtures"]


def test_the_decoder_makes_one_prompt_or_many() -> None:
    decoder = Decoder(DIM, 8, TOKENS, 16)
    assert decoder(torch.randn(DIM)).shape == (TOKENS, 16)
    assert decoder(torch.randn(5, DIM)).shape == (5, TOKENS, 16)


def test_the_decoder_is_bounded_by_its_last_map() -> None:
    decoder = Decoder(DIM, 8, TOKENS, 16)
    bound = decoder.out.weight.abs().sum(1) + decoder.out.bias.abs()
    for scale in (1.0, 100.0, 1e6):
        assert bool((decoder(torch.randn(50, DIM) * scale).flatten(1).abs() <= bound + 1e-5).all())


@pytest.mark.parametrize(("dim", "tokens", "size"), [(5, 100, 768), (250, 100, 768)])
def test_the_size_is_that_of_the_paper(dim: int, tokens: int, size: int) -> None:
    """n = 100, d = 768: 59.45 M at 5 coordinates and 78.45 M at 250, encoder and decoder together."""
    with torch.device("meta"):
        auto = AutoEncoder(dim, 768, tokens, size)
    flat_size = tokens * size
    formula = flat_size * dim + dim + dim * 768 + 768 + 768 * flat_size + flat_size
    assert sum(p.numel() for p in auto.parameters()) == formula
    assert formula / 1e6 == pytest.approx({5: 59.45, 250: 78.45}[dim], abs=0.01)


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


def test_a_finished_subspace_is_not_found_again(runs: list[Path], space: Path, tmp_path: Path) -> None:
    steps: list[object] = []
    outcome = make_subspace(runs, space, SMALL, on_step=lambda name, tick: steps.append(tick))
    assert not steps
    assert outcome.prompts == 9
    assert outcome.tasks == ("other", "tiny")
    with pytest.raises(InputError, match="other runs or settings"):
        make_subspace(runs[:1], space, SMALL)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="no folder of a subspace"):
        make_subspace(runs, tmp_path, SMALL)


def test_runs_that_do_not_fit_together_are_refused(
    tiny_files: dict[str, Path], runs: list[Path], tmp_path: Path
) -> None:
    longer = prompt_run(tiny_files, tmp_path / "longer", tokens=5)
    with pytest.raises(InputError, match="differ in length"), open_tasks([runs[0], longer]):
        pass
    shutil.copytree(runs[0], tmp_path / "cut", ignore=shutil.ignore_patterns("round-01", "round-02"))
    with pytest.raises(InputError, match="brings one prompt"), open_tasks([tmp_path / "cut"]):
        pass
    adapter = tmp_path / "adapter"
    self_train(build_config("fast", tiny_overlay(tiny_files, adapter)))
    with pytest.raises(InputError, match="has no prompt of its own"), open_tasks([adapter]):
        pass
    with pytest.raises(InputError, match=r"is given twice; name every run once\."), open_tasks([runs[0], runs[0]]):
        pass


def test_two_tasks_of_one_name_are_not_taken_for_draws_of_one(
    tiny_files: dict[str, Path], runs: list[Path], tmp_path: Path
) -> None:
    text = tiny_files["task"].read_text().replace("negative: bad, positive: good", "positive: good, negative: bad")
    (tmp_path / "task.yaml").write_text(text)
    other = prompt_run(tiny_files | {"task": tmp_path / "task.yaml"}, tmp_path / "other")
    with pytest.raises(InputError, match="are both of task 'tiny' and have other labels"), open_tasks([runs[0], other]):
        pass


def test_a_prompt_under_its_own_head_is_the_runs_model(runs: list[Path]) -> None:
    with open_tasks(runs[:1]) as (task,):
        trained = load_model(task.run, 0)
        batch = task.run.labelled.batch(range(4))
        assert torch.equal(task.logits(0, task.prompts()[0], batch), trained(batch))
