"""Who labels a round, and what students do not see."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import tiny_backbone, tiny_overlay

from listflow.pipeline.backbone.batch import Batch
from listflow.pipeline.model.classifier import Classifier, logits_of
from listflow.pipeline.model.config import VerbalizerHead
from listflow.pipeline.run.config import RunConfig, build_config
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.stages.presets import stages
from listflow.pipeline.storage.checkpoint import read_json, verified, write_json
from listflow.pipeline.storage.pseudo_labels import PseudoLabels
from listflow.pipeline.training.rounds import judge, load_model, prompt_tune, pseudo_label, train_student
from listflow.pipeline.training.trainer import Material, Recipe, Trainer


def config_of(files: dict[str, Path], folder: Path, **pseudo: object) -> RunConfig:
    return build_config("released", tiny_overlay(files, folder), {"pseudo": pseudo})


def batch() -> Batch:
    ids = torch.randint(5, 40, (4, 9), generator=torch.Generator().manual_seed(0))
    attention = torch.ones_like(ids)
    attention[1, 6:] = 0
    return Batch(ids, attention, torch.tensor([3, 2, 8, 0]))


def test_all_teachers_so_far_label_with_their_mean_probability(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    with open_run(config_of(tiny_files, tmp_path / "run", teachers="all")) as run:
        prompt_tune(run)
        for number in (1, 2):
            pseudo_label(run, number)
            train_student(run, number)
            judge(run, number)
        facts = pseudo_label(run, 2)
        assert facts["inputs"]["teachers"] == [run.weights_digest(0), run.weights_digest(1)]
        labels = PseudoLabels.load(run.round_folder(2) / "pseudo" / "labels.parquet", 2)
        each = [logits_of(load_model(run, n), run.corpus.take(labels.rows)).softmax(-1) for n in (0, 1)]
        torch.testing.assert_close(torch.from_numpy(labels.soft), (each[0] + each[1]) / 2, rtol=1e-5, atol=1e-6)


def test_a_refused_student_never_labels(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    with open_run(config_of(tiny_files, tmp_path / "run", teachers="all")) as run:
        prompt_tune(run)
        pseudo_label(run, 1)
        train_student(run, 1)
        verdict = judge(run, 1)
        path = run.round_folder(1) / "verdict.json"
        write_json(path, read_json(path) | {"promoted": False})
        assert run.teachers_of(2) == [0]
        write_json(path, verdict)
        assert run.teachers_of(2) == [0, 1]
        assert (verified(run.round_folder(1) / "pseudo") or {})["inputs"]["teachers"] == [run.weights_digest(0)]


def test_cutoff_hides_tokens_but_never_the_mask_the_first_or_padding() -> None:
    whole = batch()
    cut = whole.cut(0.5, torch.Generator().manual_seed(1))
    assert cut.visible is not None
    assert (cut.visible <= whole.attention).all()
    assert cut.visible.sum() < whole.attention.sum()
    assert cut.visible[torch.arange(4), whole.mask_at].all()
    assert cut.visible[:, 0].all()
    assert torch.equal(whole.cut(0.5, torch.Generator().manual_seed(1)).visible, cut.visible)
    assert whole.cut(0.0, torch.Generator().manual_seed(1)).attended.equal(whole.attention)


def test_joining_a_cut_batch_leaves_the_other_whole() -> None:
    cut = batch().cut(0.5, torch.Generator().manual_seed(1))
    joined = cut.join(batch())
    assert joined.visible is not None
    assert cut.visible is not None
    assert torch.equal(joined.visible, torch.cat([cut.visible, batch().attention]))


@torch.no_grad()
def test_hidden_tokens_are_hidden_from_the_tuned_layers_only() -> None:
    model = Classifier(tiny_backbone(), stages("list", layers="top:1", width=4, init_std=0.1), VerbalizerHead(), [5, 6])
    whole, cut = batch(), batch().cut(0.5, torch.Generator().manual_seed(1))
    assert model.below is not None
    below = model.below(input_ids=whole.ids, attention_mask=whole.attention).last_hidden_state
    kept = Batch(cut.ids, cut.attention, cut.mask_at, below, cut.visible)
    assert not torch.allclose(model(cut), model(whole))
    assert torch.equal(model(cut), model(kept))


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
