"""A prefix that was trained through an MLP is kept without it, and gives the same logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from stage_models import SHAPED_LIKE_BERT, TEXTS, batch_of, build, logits, perturb, small
from tiny import tiny_backbone, tiny_overlay

from listflow.pipeline.model.classifier import flat, logits_of
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.run.config import build_config
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.self_training import self_train
from listflow.pipeline.stages.presets import stages
from listflow.pipeline.storage.checkpoint import load_tensors, read_json
from listflow.pipeline.training.rounds import load_model

MLP = {"prefix_mlp": {"mlp": 6}, "prefix_neutral": {"mlp": 6}, "prefix": {"mlp": 6, "composition": "scaled"}}


@pytest.mark.parametrize("family", SHAPED_LIKE_BERT)
@pytest.mark.parametrize("preset", MLP)
@pytest.mark.parametrize("layers", ["all", "top:1"])
def test_the_flat_prefix_gives_equal_logits_without_the_mlp(family: str, preset: str, layers: str) -> None:
    backbone, chosen = tiny_backbone(family), small(preset, **MLP[preset], layers=layers)
    model = perturb(build(chosen, backbone), std=0.3)
    kept, tensors = flat(model, chosen)
    assert [stage.mlp for stage in kept] == [0]
    bare = build(kept, backbone, seed=9)
    bare.load(tensors)
    torch.testing.assert_close(
        logits(bare, batch_of(backbone)), logits(model, batch_of(backbone)), rtol=1e-6, atol=1e-6
    )
    assert (logits(build("none", backbone), batch_of(backbone)) - logits(model, batch_of(backbone))).abs().max() > 1e-2


def test_other_stages_beside_it_stay_as_they_are() -> None:
    backbone = tiny_backbone()
    chosen = (*stages("none"), *small("list"), *stages("mam_seq2seq", width=4))
    model = perturb(build(chosen, backbone), std=0.3)
    kept, tensors = flat(model, chosen)
    assert [stage == other for stage, other in zip(kept, chosen, strict=True)] == [True, True, False, True]
    assert not any("shared" in name or "embedding" in name for name in tensors)
    bare = build(kept, backbone, seed=9)
    bare.load(tensors)
    torch.testing.assert_close(
        logits(bare, batch_of(backbone)), logits(model, batch_of(backbone)), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["prefix_mlp", "mam_seq2seq"])
def test_final_holds_no_mlp_and_predicts_the_same(tiny_files: dict[str, Path], tmp_path: Path, kind: str) -> None:
    overlay = tiny_overlay(tiny_files, tmp_path / "run") | {"stage": {"kind": kind, "width": 4}}
    config = build_config("released", overlay, {"rounds": {"count": 1}})
    self_train(config)
    with open_run(config) as run:
        expected = logits_of(load_model(run, run.teacher_of(2)), run.prompt.encode(TEXTS)).numpy()
    final = tmp_path / "run" / "final"
    assert read_json(final / "model.json")["stage"][0]["mlp"] == 0
    assert not any(".first." in name for name in load_tensors(final / "weights.safetensors"))
    np.testing.assert_allclose(Predictor.open(tmp_path / "run").logits(TEXTS), expected, rtol=1e-6, atol=1e-6)
