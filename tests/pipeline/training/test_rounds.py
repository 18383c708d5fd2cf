"""Who labels a round."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_overlay

from listflow.pipeline.model.classifier import logits_of
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.run import Run
from listflow.pipeline.storage.checkpoint import read_json, verified, write_json
from listflow.pipeline.storage.pseudo_labels import PseudoLabels
from listflow.pipeline.training import rounds
from listflow.pipeline.training.rounds import (
    committee_logits,
    draw_rows,
    judge,
    load_model,
    prompt_tune,
    pseudo_label,
    train_student,
)


def config_of(files: dict[str, Path], folder: Path, **pseudo: object) -> RunConfig:
    return build_config("released", tiny_overlay(files, folder), {"pseudo": pseudo})


def test_all_teachers_so_far_label_with_their_mean_probability(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    with open_run(config_of(tiny_files, tmp_path / "run", teachers="all")) as run:
        prompt_tune(run)
        for number in (1, 2):
            pseudo_label(run, number)
            train_student(run, number)
            judge(run, number)
        facts = pseudo_label(run, 2)
        assert facts["inputs"]["teachers"] == [run.weights_digest(0), run.weights_digest(1)]
        labels = PseudoLabels.load(run.round(2).labels, 2)
        each = [logits_of(load_model(run, n), run.corpus.take(labels.rows)).softmax(-1) for n in (0, 1)]
        torch.testing.assert_close(torch.from_numpy(labels.soft), (each[0] + each[1]) / 2, rtol=1e-5, atol=1e-6)


def test_a_teacher_is_asked_once_about_the_same_rows(
    tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counted(run: Run, number: int, *rest: Any) -> torch.Tensor:
        asked.append(number)
        return committee_logits(run, number, *rest)

    monkeypatch.setattr(rounds, "committee_logits", counted)
    config = config_of(tiny_files, tmp_path / "run", teachers="all")
    with open_run(config.model_copy(update={"student": config.student.model_copy(update={"steps": 20})})) as run:
        prompt_tune(run)
        for number in (1, 2):
            assert len(draw_rows(run, number)) == len(run.corpus)  # so that both rounds draw the same rows
            pseudo_label(run, number)
            train_student(run, number)
            judge(run, number)
        assert asked == [0, 1]
        run.said.clear()  # as after an interruption
        remembered = run.round(2).labels.read_bytes()
        shutil.rmtree(run.round(2).pseudo)
        pseudo_label(run, 2)
        assert asked == [0, 1, 0, 1]
        assert run.round(2).labels.read_bytes() == remembered


def means(files: dict[str, Path], folder: Path, **pseudo: object) -> list[torch.Tensor]:
    """The mean soft labels of two rounds."""
    found = []
    with open_run(config_of(files, folder, temperature=0.5, **pseudo)) as run:
        prompt_tune(run)
        for number in (1, 2):
            pseudo_label(run, number)
            train_student(run, number)
            judge(run, number)
            found.append(torch.from_numpy(PseudoLabels.load(run.round(number).labels, 2).soft).mean(0))
    return found


def test_rounds_are_held_at_the_class_shares_of_the_first_one(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    free, held = (means(tiny_files, tmp_path / prior, prior=prior) for prior in ("none", "shares"))
    assert torch.equal(free[0], held[0])
    assert (free[1] - free[0]).abs().max() > 1e-3
    torch.testing.assert_close(held[1], held[0], rtol=0, atol=1e-4)


def test_shares_that_are_stated_hold_every_round(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    task = tmp_path / "task.yaml"
    task.write_text(tiny_files["task"].read_text() + "shares: {negative: 0.8, positive: 0.2}\n")
    for found in means(tiny_files | {"task": task}, tmp_path / "run", prior="shares"):
        torch.testing.assert_close(found, torch.tensor([0.8, 0.2]), rtol=0, atol=1e-4)


def test_a_refused_student_never_labels(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    with open_run(config_of(tiny_files, tmp_path / "run", teachers="all")) as run:
        prompt_tune(run)
        pseudo_label(run, 1)
        train_student(run, 1)
        verdict = judge(run, 1)
        path = run.round(1).verdict
        write_json(path, read_json(path) | {"promoted": False})
        assert run.teachers_of(2) == [0]
        write_json(path, verdict)
        assert run.teachers_of(2) == [0, 1]
        assert (verified(run.round(1).pseudo) or {})["inputs"]["teachers"] == [run.weights_digest(0)]
