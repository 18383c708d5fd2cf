"""Finished runs as intrinsic prompt tuning sees them: which belong together, and whose prompt is whose."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from finished_views import believe, two_views
from prompt_runs import TOKENS, prompt_run
from tiny import tiny_overlay

from listflow.data.errors import InputError
from listflow.pipeline.backbone.text_face import TextFace
from listflow.pipeline.pretraining.prompted_tasks import open_tasks
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.training.rounds import load_model

pytest_plugins = ["prompt_fixtures"]


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


def test_of_two_views_the_prompt_is_read_and_no_text_meets_the_text_face(
    tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = two_views(tiny_files, tmp_path / "run") | {"stage": {"kind": "soft_prompt", "tokens": TOKENS}}
    self_train(build_config("fast", overlay, {"rounds": {"count": 1}}))
    shutil.rmtree(tmp_path / "run" / "inputs" / "vectors")
    monkeypatch.delattr(TextFace, "embed")
    believe(tmp_path / "run", prompt=0.4, text=0.6)
    with open_tasks([tmp_path / "run"]) as (task,):
        assert task.prompts().shape[:2] == (2, TOKENS)
        batch = task.run.labelled.batch(range(4))
        assert torch.equal(task.logits(1, task.prompts()[1], batch), load_model(task.run, 1)(batch))
    believe(tmp_path / "run", prompt=0.0, text=1.0)
    with (
        pytest.raises(InputError, match=r"has no say beside its text view.*give runs of"),
        open_tasks([tmp_path / "run"]),
    ):
        pass
    shutil.rmtree(tmp_path / "run" / "round-00" / "committee")
    with pytest.raises(InputError, match="has not weighed its views yet; finish it"), open_tasks([tmp_path / "run"]):
        pass
