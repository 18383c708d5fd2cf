"""Encoders that people have, through whole runs: six rounds, the final model on disk, and what is exported of it.

Each is tiny and random. What stages and engines are on every family is tested beside their code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from committees import both_heard, committee_overlay, more_labels
from finished_views import code_of, saved_backbone
from pseudo_token_models import NEEDS, make_subspace
from tiny import sentences, tiny_overlay

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import load_backbone
from listflow.pipeline.backbone.families import FAMILIES
from listflow.pipeline.model.config import AnyHead
from listflow.pipeline.results.export import export
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.stages.config import Unified
from listflow.pipeline.stages.presets import STAGE_PRESETS, stages

THIN = ["xlm-roberta", "mpnet", "albert"]
NEW = [*THIN, "camembert", "ernie"]
TEXTS = [row["text"] for row in sentences(24, 2, labelled=False)]
HEADS = [head.model_fields["kind"].default for head in get_args(get_args(AnyHead)[0])]
SIX: dict[str, Any] = {
    "rounds": {"count": 6}, "student": {"steps": 4, "batch": 6, "warmup": 0.5, "tail_epochs": 1, "tail_batch": 4},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _both_heard() -> Iterator[None]:
    with both_heard():
        yield


@pytest.fixture(scope="module")
def files(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return more_labels(tiny_files, tmp_path_factory.mktemp("labels"))


@pytest.mark.parametrize("family", [*THIN, *(pytest.param(name, marks=pytest.mark.long) for name in NEW[len(THIN) :])])
def test_six_rounds_of_two_views_are_predicted_with_and_exported(
    family: str, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, run, out = saved_backbone(tmp_path / "backbone", family), tmp_path / "run", tmp_path / "out"
    report = self_train(build_config("fast", committee_overlay(files | {"backbone": backbone}, run), SIX))
    assert [made.round for made in report.rounds] == list(range(1, 7))
    expected = Predictor.open(run).probabilities(TEXTS)
    assert expected.std(0).max() > 1e-3
    if FAMILIES[family].shares_layers:
        with pytest.raises(InputError, match="runs the same weights in every layer"):
            export(run, out)
        return
    export(run, out)
    monkeypatch.chdir(out)
    found = code_of(out)["probabilities"]([(text,) for text in TEXTS])
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("family", NEW)
@pytest.mark.parametrize(
    ("stage", "head"),
    [(stage, "verbalizer") for stage in STAGE_PRESETS] + [("list", head) for head in HEADS if head != "verbalizer"],
)
def test_six_rounds_with_every_stage_and_every_head(
    family: str, stage: str, head: str, files: dict[str, Path], tmp_path: Path
) -> None:
    backbone, run = saved_backbone(tmp_path / "backbone", family), tmp_path / "run"
    if stage == "ipt":
        make_subspace(tmp_path, load_backbone(str(backbone), "fp32", "cpu"))
    chosen: dict[str, object] = {"kind": stage}
    if stage in NEEDS:
        chosen |= NEEDS[stage](tmp_path)
    elif all(isinstance(part, Unified) for part in stages(stage)):
        chosen["width"] = 4
    overlay = tiny_overlay(files | {"backbone": backbone}, run) | {"stage": chosen}
    overlay["head"] = {"kind": head} | ({"width": 16} if head == "ytuning" else {})
    report = self_train(build_config("fast", overlay, SIX))
    assert len(report.rounds) == 6
    assert torch.isfinite(torch.from_numpy(Predictor.open(run).logits(TEXTS))).all()
