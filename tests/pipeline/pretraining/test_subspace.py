"""`listflow subspace`: found once; an unseen task stays unseen, and each setting measures what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from prompt_runs import SMALL, ipt_stage

from listflow.data.errors import InputError
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.pretraining import subspace as five_settings
from listflow.pipeline.pretraining.msf import subspace_key
from listflow.pipeline.pretraining.prompted_tasks import PromptedTask, accuracy, open_tasks
from listflow.pipeline.pretraining.subspace import SETTINGS, Score, evaluate_settings, make_subspace, relative, tuned
from listflow.pipeline.stages.ipt import load_auto_encoder, load_decoder, read_origin
from listflow.pipeline.storage.checkpoint import read_json
from listflow.pipeline.training.trainer import Material, Recipe, Trainer

pytest_plugins = ["prompt_fixtures"]
FOLDS = {"other": "1-without-other", "tiny": "2-without-tiny"}
REBUILT = ("T_train (MSF)", "T_test (MSF)")


def test_the_unseen_task_is_never_part_of_its_subspace(runs: list[Path], tmp_path: Path) -> None:
    with open_tasks(runs) as tasks:
        *_, scores = evaluate_settings(tasks, tmp_path, SMALL)
    known = {folder.name: read_origin(folder).tasks for folder in tmp_path.iterdir()}
    assert known == {FOLDS["other"]: ("tiny",), FOLDS["tiny"]: ("other",)}
    per = {setting: [s for s in scores if s.setting == setting] for setting in SETTINGS}
    assert {len(per[name]) for name in ("T_train (MSF)", "T_train same (IST)")} == {2}
    assert [s.held_out for s in per["T_train diff (IST)"]] == ["other"]
    for name in ("T_test (MSF)", "T_test (IST)"):
        assert {(s.held_out, Path(s.run).name) for s in per[name]} == {("other", "other"), ("tiny", "a"), ("tiny", "b")}
    for name in ("T_train (MSF)", "T_train same (IST)", "T_train diff (IST)"):
        assert all((s.held_out == "other") != (Path(s.run).name == "other") for s in per[name])


def test_further_draws_of_labels_bring_no_prompts(runs: list[Path], tmp_path: Path) -> None:
    """Else what "T_train diff" measures would not be unseen data."""
    with open_tasks(runs) as tasks:
        list(evaluate_settings(tasks, tmp_path, SMALL))
        first, second, other = tasks
        kept = {name: read_json(tmp_path / name / "subspace" / "manifest.json")["key"] for name in FOLDS.values()}
        assert kept == {FOLDS["other"]: subspace_key([first], SMALL), FOLDS["tiny"]: subspace_key([other], SMALL)}
        assert kept[FOLDS["other"]] != subspace_key([first, second], SMALL)


def test_each_setting_measures_what_it_says(runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for accuracy tell any two prompts apart, as a few test rows may not."""
    moved: list[tuple[str, Path]] = []

    def stand_in(task: PromptedTask, subspace: Path) -> float:
        moved.append((str(task.run.folder), subspace))
        return 100.0

    monkeypatch.setattr(five_settings, "tuned", stand_in)
    monkeypatch.setattr(PromptedTask, "accuracy", lambda task, prompt: float(prompt.sum()))
    with open_tasks(runs) as tasks:
        *_, scores = evaluate_settings(tasks, tmp_path, SMALL)
        prompts = {str(task.run.folder): task.prompts()[0] for task in tasks}
    assert list(dict.fromkeys(score.setting for score in scores)) == list(SETTINGS)
    for score in scores:
        prompt, auto = prompts[score.run], load_auto_encoder(tmp_path / FOLDS[score.held_out])
        assert score.reference == float(prompt.sum())
        assert score.accuracy == (float(auto(prompt)[0].sum()) if score.setting in REBUILT else 100.0)
    assert moved == [(s.run, tmp_path / FOLDS[s.held_out]) for s in scores if s.setting not in REBUILT]


def test_within_a_subspace_coordinates_are_tuned_and_no_whole_prompt(
    runs: list[Path], space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Classifier] = []

    class Watched(Trainer):
        def __init__(self, model: Classifier, recipe: Recipe, material: Material) -> None:
            trained.append(model)
            super().__init__(model, recipe, material)

    monkeypatch.setattr(five_settings, "Trainer", Watched)
    with open_tasks(runs) as (task, *_):
        reached = tuned(task, space)
        (model,) = trained
        assert reached == accuracy(task.run, model)
    assert [name for name in model.tunable() if name.startswith("stage.")] == ["stage.0.z"]
    decoder, start = load_decoder(ipt_stage(space))
    found = model.tensors()["stage.0.z"]
    assert not torch.equal(found, start)
    assert torch.equal(model.stage[0].vectors(), decoder(found))


def test_one_task_alone_has_no_unseen_one(runs: list[Path], tmp_path: Path) -> None:
    with open_tasks(runs[:2]) as tasks, pytest.raises(InputError, match="at least two tasks"):
        list(evaluate_settings(tasks, tmp_path, SMALL))


def test_interrupted_settings_go_on_with_the_next_task(runs: list[Path], tmp_path: Path) -> None:
    whole = make_subspace(runs, tmp_path / "whole", SMALL, evaluate=True)
    left_out: list[str] = []

    def stop_in_the_second_fold(name: str, tick: object) -> None:
        left_out.append(name)
        if name == "tiny":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_subspace(runs, tmp_path / "cut", SMALL, evaluate=True, on_step=stop_in_the_second_fold)
    assert set(left_out) == {"", "other", "tiny"}
    resumed: list[str] = []
    again = make_subspace(runs, tmp_path / "cut", SMALL, evaluate=True, on_step=lambda name, tick: resumed.append(name))
    assert set(resumed) == {"tiny"}
    assert again.scores == whole.scores


def test_relative_scores() -> None:
    same = [Score("s", "t", "r", value, value) for value in (0.4, 0.9)]
    assert relative(same) == 1.0
    assert relative([*same, Score("s", "t", "r", 0.5, 0.0)]) == 1.0
    assert relative([Score("s", "t", "r", 0.5, 0.0)]) is None
    assert relative([Score("s", "t", "r", 0.3, 0.6), Score("s", "t", "r", 0.9, 0.6)]) == pytest.approx(1.0)


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
