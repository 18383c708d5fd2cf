"""One frozen backbone under many classifiers: identity at the start, independence, nothing else moves."""

from __future__ import annotations

import pytest
import torch
from tiny import CONFIGS, tiny_backbone

from listflow.data.task import Task
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.config import VerbalizerHead
from listflow.pipeline.model.verbalizer import label_word_ids
from listflow.pipeline.stages.presets import stages
from listflow.pipeline.training.trainer import Material, Recipe, Trainer

TASK = Task(name="t", template="{text} it was {mask} .", labels={"no": "bad", "yes": "good"})
TEXTS = [("w1 w2 good", None), ("w3 w4 w5 w6 poor w7 w8", None), ("w9", None)]


def build(family: str, seed: int = 0, **stage: object) -> tuple[Classifier, Prompt]:
    backbone = tiny_backbone(family)
    words = label_word_ids(TASK, backbone.tokenizer)
    settings = {"width": 4, "init_std": 1e-12} | stage
    model = Classifier(backbone, stages("list", **settings), VerbalizerHead(), words, seed)
    return model, Prompt(TASK, backbone.tokenizer, 32)


@pytest.mark.parametrize("family", CONFIGS)
def test_logits_are_the_masked_lm_logits_of_the_label_words(family: str) -> None:
    """The verbalizer's C rows equal those columns of the full vocabulary projection, padding included."""
    model, prompt = build(family)
    backbone = tiny_backbone(family)
    batch = prompt.encode(TEXTS).batch(range(3))
    with torch.no_grad():
        full = backbone.model(input_ids=batch.ids, attention_mask=batch.attention).logits
        words = [word for (word,) in label_word_ids(TASK, prompt.tokenizer)]
        expected = full[torch.arange(3), batch.mask_at][:, words]
        torch.testing.assert_close(model(batch), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", CONFIGS)
def test_padding_and_company_do_not_change_a_row(family: str) -> None:
    model, prompt = build(family, init_std=0.1)
    encoded = prompt.encode(TEXTS)
    with torch.no_grad():
        together = model(encoded.batch(range(3)))
        alone = torch.cat([model(encoded.batch([i])) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", CONFIGS)
def test_training_moves_only_its_own_tensors(family: str) -> None:
    backbone = tiny_backbone(family)
    before = backbone.checksum()
    words = label_word_ids(TASK, backbone.tokenizer)
    make = lambda seed: Classifier(backbone, stages("list", width=4), VerbalizerHead(), words, seed)  # noqa: E731
    teacher, student = make(1), make(2)
    encoded = Prompt(TASK, backbone.tokenizer, 32).encode(TEXTS)
    with torch.no_grad():
        taught = teacher(encoded.batch(range(3)))
    recipe = Recipe((("labelled", 5),), learning_rate=0.05, batch=2, labelled_batch=2)
    Trainer(student, recipe, Material(encoded, torch.tensor([0, 1, 1]))).run()
    with torch.no_grad():
        assert torch.equal(teacher(encoded.batch(range(3))), taught)
        assert not torch.allclose(student(encoded.batch(range(3))), taught, atol=1e-3)
    assert backbone.checksum() == before


def test_views_share_every_tensor_of_the_backbone() -> None:
    backbone = tiny_backbone()
    ours = {p.data_ptr() for p in backbone.model.parameters()}
    assert {p.data_ptr() for p in backbone.view().parameters()} <= ours


def test_teacher_and_student_add_only_their_small_tensors() -> None:
    """Bytes of distinct storages: one backbone, whatever the number of classifiers on it."""
    backbone = tiny_backbone()
    words = label_word_ids(TASK, backbone.tokenizer)
    models = [Classifier(backbone, stages("list", width=4), VerbalizerHead(), words, seed) for seed in range(3)]
    every = [p for module in (backbone.model, *models) for p in module.parameters()]
    held = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in every}
    small = sum(p.nbytes for model in models for p in model.tunable().values())
    assert sum(held.values()) == sum(p.nbytes for p in backbone.model.parameters()) + small


def test_only_small_tensors_are_saved_and_they_come_back_exactly() -> None:
    model, prompt = build("bert", init_std=0.1, seed=1)
    other, _ = build("bert", init_std=0.1, seed=2)
    batch = prompt.encode(TEXTS).batch(range(3))
    with torch.no_grad():
        assert not torch.equal(model(batch), other(batch))
        other.load(model.tensors())
        assert torch.equal(model(batch), other(batch))
    assert all(name.startswith(("stage.", "head.")) for name in model.tensors())


def test_loading_foreign_tensors_is_refused() -> None:
    model, _ = build("bert")
    with pytest.raises(ValueError, match=r"stage\.0\.0\.down\.weight"):
        model.load({name: t for name, t in model.tensors().items() if name != "stage.0.0.down.weight"})


def test_top_adapts_only_the_last_layers() -> None:
    model, _ = build("bert", layers="top:1")
    assert len(model.stage[0]) == 2
    assert len(build("bert")[0].stage[0]) == 4


def test_offset_shifts_the_start_logits() -> None:
    backbone = tiny_backbone()
    words = label_word_ids(TASK, backbone.tokenizer)
    batch = Prompt(TASK, backbone.tokenizer, 32).encode(TEXTS).batch(range(3))
    plain, shifted = (
        Classifier(backbone, stages("list", width=4), VerbalizerHead(), words, 0, offset)
        for offset in (None, torch.tensor([0.5, -2.0]))
    )
    with torch.no_grad():
        torch.testing.assert_close(plain(batch) - shifted(batch), torch.tensor([[0.5, -2.0]]).expand(3, 2))


def test_only_the_tuned_layers_train_and_no_walk_is_made_for_a_mode_that_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = build("bert", layers="top:1")
    walked: list[bool] = []
    assert model.encoder is not None
    assert model.below is not None
    own = model.encoder.train
    monkeypatch.setattr(model.encoder, "train", lambda mode=True: (walked.append(mode), own(mode))[1])
    for mode in (True, True, False, False, True):
        assert model.train(mode) is model
        assert {module.training for module in model.encoder.modules()} == {mode}
        assert not any(module.training for module in model.below.modules())
    assert walked == [True, False, True]
