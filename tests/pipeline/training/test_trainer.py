"""The loop: the same steps on kept features, meta weights of the texts as seen, a whole snapshot of a torn model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_overlay
from torch import nn

from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.training.models import teacher_recipe
from listflow.pipeline.training.trainer import Material, Recipe, Trainer

TOP = {"stage": {"layers": "top:1"}}


def config_of(files: dict[str, Path], folder: Path, **pseudo: object) -> RunConfig:
    return build_config("released", tiny_overlay(files, folder), {"pseudo": pseudo})


@pytest.mark.parametrize("engine", ["fused", "jvp"])
def test_meta_weights_see_the_cut_texts_that_the_student_sees(
    tiny_files: dict[str, Path], tmp_path: Path, engine: str
) -> None:
    found = {}
    for name in ("higher", engine):
        with open_run(config_of(tiny_files, tmp_path / name)) as run:
            soft = torch.tensor([[0.7, 0.3]]).expand(len(run.corpus), 2)
            recipe = Recipe((("reweighted", 2),), 1e-3, 6, 4, 4, engine=name, cutoff=0.4)
            trainer = Trainer(run.new_classifier(1, None), recipe, Material(run.labelled, run.gold, run.corpus, soft))
            found[name] = trainer.run().weighed
    for (_, expected), (_, weights) in zip(found["higher"], found[engine], strict=True):
        torch.testing.assert_close(torch.from_numpy(weights), torch.from_numpy(expected), rtol=1e-3, atol=1e-5)


def test_training_on_kept_features_takes_the_same_steps(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    config = build_config("fast", tiny_overlay(tiny_files, tmp_path / "run"), TOP)
    losses = {}
    for keep in (True, False):
        with open_run(config, keep_features=keep) as run:
            assert (run.corpus.features is not None) is keep
            soft = torch.tensor([[0.99, 0.01]]).expand(len(run.corpus), 2)
            material = Material(run.labelled, run.gold, run.corpus, soft)
            recipe = Recipe((("warmup", 4), ("reweighted", 4), ("tail", 4)), 1e-2, 6, 4, 4)
            losses[keep] = Trainer(run.new_classifier(1, None), recipe, material).run().losses
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-4)


def test_a_snapshot_is_whole_where_the_model_was_torn(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    """Forward-mode passes put tensors of their own in the place of parameters, and may be cut before putting back."""
    with open_run(build_config("fast", tiny_overlay(tiny_files, tmp_path / "run"))) as run:
        model = run.new_classifier(0, None)
        trainer = Trainer(model, teacher_recipe(run, len(run.gold)), Material(run.labelled, run.gold))
        trainer.run()
        whole = trainer.snapshot()
        model.head = nn.Identity()
        torn = trainer.snapshot()
    assert any(name.startswith("exp_avg/head.") for name in whole)
    assert torn.keys() == whole.keys()
    assert all(torch.equal(torn[name], whole[name]) for name in whole)


def test_a_training_does_not_mind_where_an_interrupt_left_gradients_off(
    tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    losses = {}
    with open_run(build_config("fast", tiny_overlay(tiny_files, tmp_path / "run"))) as run:
        for enabled in (True, False):
            model = run.new_classifier(0, None)
            trainer = Trainer(model, teacher_recipe(run, len(run.gold)), Material(run.labelled, run.gold))
            with torch.set_grad_enabled(enabled):
                losses[enabled] = trainer.run().losses
                assert torch.is_grad_enabled() is enabled
    assert losses[True] == losses[False]
