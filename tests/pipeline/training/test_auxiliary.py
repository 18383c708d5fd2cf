"""The masked-LM loss beside the labels: which words it hides, what it moves, and that it is a second term only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from interruptions import killed_and_resumed
from meta_step import step_of
from pseudo_token_models import TASK, build
from tiny import CONFIGS, FILLER, tiny_backbone, tiny_overlay
from torch import Tensor

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Batch, Encoded
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.method.reweight import ENGINES
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.config import LinearHead, VerbalizerHead, YTuningHead
from listflow.pipeline.model.verbalizer import label_word_ids
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.stages.presets import pseudo_tokens, stages
from listflow.pipeline.training.auxiliary import Auxiliary, accompanied, auxiliary_term, hide
from listflow.pipeline.training.models import auxiliary_of, student_recipe, teacher_recipe
from listflow.pipeline.training.trainer import Material, Phase, Recipe, Trainer

PHASES: tuple[tuple[Phase, int], ...] = (("labelled", 2), ("warmup", 2), ("reweighted", 2), ("tail", 1))


def spared_by(prompt: Prompt) -> tuple[int, ...]:
    template = {token for ids in prompt.fixed.values() for token in ids if token >= 0}
    return tuple(sorted({*prompt.tokenizer.all_special_ids, *template}))


def auxiliary(prompt: Prompt, probability: float = 0.3, weight: float = 0.5) -> Auxiliary:
    tokenizer = prompt.tokenizer
    return Auxiliary(probability, weight, tokenizer.mask_token_id, len(tokenizer), spared_by(prompt))


def texts(prompt: Prompt, rows: int = 6, words: int = 12, seed: int = 0) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(len(FILLER), (rows, words), generator=generator).tolist()
    return prompt.encode(
        [(" ".join(FILLER[i] for i in draw[: words - row % 4]), None) for row, draw in enumerate(draws)]
    )


def batch_of(prompt: Prompt, rows: int = 6, words: int = 12) -> Batch:
    return texts(prompt, rows, words).batch(range(rows))


def material(prompt: Prompt) -> Material:
    gold = torch.tensor([0, 1, 2, 0, 1, 2])
    soft = torch.full((8, 3), 0.1) + 0.7 * F.one_hot(torch.arange(8) % 3, 3)
    return Material(texts(prompt), gold, texts(prompt, rows=8, seed=1), soft)


def recipe(extra: Auxiliary | None, dropout: bool = False, engine: str = "fused") -> Recipe:
    return Recipe(
        PHASES, learning_rate=0.05, batch=3, labelled_batch=2, meta_batch=2, auxiliary=extra, dropout=dropout,
        engine=engine, seed=3,
    )  # fmt: skip


# Which words are hidden


def test_only_ordinary_words_are_hidden() -> None:
    """No special token, pseudo token, padding, mask slot or word of the template, wherever it stands."""
    _, prompt = build(encoder="none")
    batch = prompt.encode([("w1 w2 it was w3 [MASK] zzz", None), ("w4 . w5", None)]).batch([0, 1])
    masked = hide(batch, replace(auxiliary(prompt), probability=1.0), torch.Generator().manual_seed(0))
    found = prompt.tokenizer.convert_ids_to_tokens(batch.ids[masked.chosen].tolist())
    assert found == ["w1", "w2", "w3", "w4", "w5"]
    assert torch.equal(masked.gold, batch.ids[masked.chosen])
    assert torch.equal(masked.ids[~masked.chosen], batch.ids[~masked.chosen])
    assert (masked.ids.gather(1, batch.mask_at.unsqueeze(1)) == prompt.tokenizer.mask_token_id).all()


def test_shares_are_right() -> None:
    """15 % of the words; of these 80 % masked, 10 % as they were, 10 % another word and never a special one."""
    _, prompt = build(encoder="none")
    prompt.max_length = prompt.budget = 500
    batch, extra = batch_of(prompt, rows=300, words=60), auxiliary(prompt, probability=0.15)
    masked = hide(batch, extra, torch.Generator().manual_seed(4))
    ordinary = ~torch.isin(batch.ids, torch.tensor(extra.spared)) & (batch.ids >= 0)
    assert masked.chosen.sum() / ordinary.sum() == pytest.approx(0.15, abs=0.01)
    shown = masked.ids[masked.chosen]
    assert (shown == extra.mask_id).float().mean().item() == pytest.approx(0.8, abs=0.03)
    assert (shown == masked.gold).float().mean().item() == pytest.approx(0.1 + 0.1 / 52, abs=0.03)
    drawn = shown[(shown != extra.mask_id) & (shown != masked.gold)]
    assert len(drawn) / len(shown) == pytest.approx(0.1, abs=0.03)
    assert not torch.isin(drawn, torch.tensor(extra.spared)).any()


def test_the_same_seed_hides_the_same_words() -> None:
    _, prompt = build(encoder="none")
    batch = batch_of(prompt)
    first, second, third = (hide(batch, auxiliary(prompt), torch.Generator().manual_seed(s)).ids for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


# What the term is


@pytest.mark.parametrize("family", CONFIGS)
def test_the_term_is_that_of_the_whole_masked_lm(family: str) -> None:
    """Against the library's own model, fed with the pseudo tokens as input embeddings."""
    model, prompt = build(family, encoder="none", start="words", words="it was not")
    batch, extra, backbone = batch_of(prompt), auxiliary(prompt), tiny_backbone(family)
    found = auxiliary_term(model, batch, extra, seed=5)
    masked = hide(batch, extra, torch.Generator().manual_seed(5))
    words = torch.tensor(backbone.tokenizer.convert_tokens_to_ids(["it", "was", "not"]))
    ids = torch.where(masked.ids < 0, words[(-1 - masked.ids).clamp(min=0)], masked.ids)
    with torch.no_grad():
        logits = backbone.model(input_ids=ids, attention_mask=batch.attention).logits
    expected = extra.weight * F.cross_entropy(logits[masked.chosen], masked.gold)
    assert found is not None
    torch.testing.assert_close(found.detach(), expected, rtol=1e-5, atol=1e-6)


def test_no_hidden_word_is_no_term() -> None:
    model, prompt = build(encoder="none")
    assert auxiliary_term(model, batch_of(prompt), replace(auxiliary(prompt), probability=0.0), seed=1) is None
    template_only = prompt.encode([("it was .", None)]).batch([0])
    assert auxiliary_term(model, template_only, replace(auxiliary(prompt), probability=1.0), seed=1) is None


@pytest.mark.parametrize(("probability", "weight"), [(0.0, 0.5), (0.3, 0.0)])
def test_without_probability_or_weight_training_is_the_plain_one(probability: float, weight: float) -> None:
    """P8, bit by bit."""
    trained = []
    for extra in (True, False):
        model, prompt = build(encoder="none")
        chosen = auxiliary(prompt, probability, weight) if extra else None
        Trainer(model, recipe(chosen), material(prompt)).run()
        trained.append(model.tensors())
    assert all(torch.equal(value, trained[1][name]) for name, value in trained[0].items())


@pytest.mark.parametrize("phase", ["labelled", "warmup", "reweighted", "tail"])
@pytest.mark.parametrize("encoder", ["none", "lstm"])
def test_the_gradient_is_the_sum_of_both(phase: Phase, encoder: str) -> None:
    """Of the class loss as without it, meta weights included, and of the term alone."""
    _check_sum(phase, encoder, "fused")


@pytest.mark.parametrize("engine", ["higher", "jvp"])
def test_the_gradient_is_the_sum_of_both_with_every_engine(engine: str) -> None:
    _check_sum("reweighted", "none", engine)


def _check_sum(phase: Phase, encoder: str, engine: str) -> None:
    gradients: list[list[Tensor]] = []
    weights: list[np.ndarray] = []
    for with_class, with_extra in ((True, True), (True, False), (False, True)):
        model, prompt = build(encoder=encoder)
        extra = auxiliary(prompt)
        trainer = Trainer(model, replace(recipe(extra, engine=engine), phases=((phase, 1),)), material(prompt))
        if with_class:
            taken = trainer._take[phase](trainer, 0)
            weights += [taken.weighed[1]] if taken.weighed else []
        if with_extra:
            assert trainer._guess(extra, trainer._texts(phase, 0)) > 0
        gradients.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trainer.parameters])
    for both, first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(both, first + second, rtol=1e-4, atol=1e-6)
    assert len(weights) == (2 if phase == "reweighted" else 0)
    assert all((one == weights[0]).all() for one in weights)
    assert any(part.abs().max() > 1e-6 for part in gradients[2])


def test_the_term_moves_pseudo_tokens_alone() -> None:
    """P8: not the backbone, and not the head of the labels either, which only the class loss moves."""
    model, prompt = build(encoder="none")
    before, start = tiny_backbone().checksum(), model.tensors()
    term = auxiliary_term(model, batch_of(prompt), auxiliary(prompt), seed=1)
    assert term is not None
    term.backward()
    assert [name for name, p in model.tunable().items() if p.grad is not None] == ["stage.0.embedding"]
    assert {id(p) for p in model.parameters() if p.grad is not None} == {id(model.stage[0].embedding)}
    model.zero_grad(set_to_none=True)
    Trainer(model, recipe(auxiliary(prompt)), material(prompt)).run()
    words = model.encoder.get_input_embeddings().inner.weight
    assert torch.equal(words, tiny_backbone().word_rows)
    assert tiny_backbone().checksum() == before
    assert all(not torch.equal(value, start[name]) for name, value in model.tensors().items())


def test_scores_of_the_meta_step_know_nothing_of_it() -> None:
    model, prompt = build(encoder="none")
    parameters, step = list(model.tunable().values()), step_of(prompt, seed=2)
    first = ENGINES["fused"](model, parameters, step).scores
    term = auxiliary_term(model, batch_of(prompt), auxiliary(prompt), seed=1)
    assert term is not None
    term.backward()
    assert torch.equal(ENGINES["fused"](model, parameters, step).scores, first)


@pytest.mark.parametrize("head", [LinearHead(), YTuningHead(width=16)])
def test_other_heads_may_have_it(head: LinearHead | YTuningHead) -> None:
    """Words are guessed by the backbone's head, whatever reads the labels."""
    backbone, chosen = tiny_backbone(), stages(["soft_prompt_mlm", {"kind": "list", "width": 4, "init_std": 0.1}])
    words = label_word_ids(TASK, backbone.tokenizer)
    model = Classifier(backbone, chosen, head, words)
    prompt = Prompt(TASK, backbone.tokenizer, 48, pseudo_tokens(chosen))
    term = auxiliary_term(model, batch_of(prompt), auxiliary(prompt), seed=1)
    assert term is not None
    term.backward()
    assert all(p.grad is not None for p in model.stage.parameters())


def test_a_backbone_without_a_masked_lm_head_is_refused() -> None:
    backbone = tiny_backbone()
    encoder = Backbone(backbone.model, backbone.tokenizer, "bare", has_head=False)
    words = label_word_ids(TASK, backbone.tokenizer)
    Classifier(encoder, stages("soft_prompt"), LinearHead(), words)
    with pytest.raises(InputError, match=r"which stage\.aux_weight needs"):
        Classifier(encoder, stages("soft_prompt_mlm"), LinearHead(), words)


def test_a_bf16_backbone_still_gives_fp32_gradients() -> None:
    _, prompt = build(encoder="none")
    backbone = tiny_backbone()
    backbone.model.to(torch.bfloat16)
    words = label_word_ids(TASK, backbone.tokenizer)
    model = Classifier(backbone, stages("soft_prompt", tokens=3), VerbalizerHead(), words)
    term = auxiliary_term(model, batch_of(prompt), auxiliary(prompt), seed=1)
    assert term is not None
    term.backward()
    assert model.stage[0].embedding.grad.dtype == torch.float32


# In a run


@pytest.mark.parametrize("dropout", [False, True])
def test_a_restored_training_ends_with_the_same_bytes(dropout: bool) -> None:
    ends = []
    for stop in (None, 1, 3, 5, 6):
        model, prompt = build(encoder="none")
        trainer = Trainer(model, recipe(auxiliary(prompt), dropout), material(prompt))
        if stop is not None:
            kept: list[dict[str, Tensor]] = []
            trainer.run(lambda tick, t=trainer, k=kept, s=stop: k.append(t.snapshot()) if tick.step == s else None)
            model, _ = build(encoder="none")
            trainer = Trainer(model, recipe(auxiliary(prompt), dropout), material(prompt))
            trainer.restore(kept[0])
        losses = trainer.run().losses
        ends.append((model.tensors(), losses))
    for tensors, losses in ends[1:]:
        assert losses == ends[0][1]
        assert all(torch.equal(value, ends[0][0][name]) for name, value in tensors.items())


def test_unlabelled_texts_stand_beside_labelled_ones() -> None:
    _, prompt = build(encoder="none")
    batch, plain = batch_of(prompt, rows=4), texts(prompt, rows=8, seed=1)
    joined = accompanied(batch, plain, seed=2)
    assert len(joined) == 8
    assert torch.equal(joined.ids[:4, : batch.ids.shape[1]], batch.ids)
    assert len(accompanied(batch, plain.take(torch.tensor([1]).numpy()), seed=2)) == 5
    assert torch.equal(joined.ids, accompanied(batch, plain, seed=2).ids)


def test_a_run_trains_teacher_and_students_with_it(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    overlay = tiny_overlay(tiny_files, tmp_path / "run") | {"stage": {"kind": "soft_prompt_mlm", "tokens": 4}}
    config = build_config("released", overlay | {"rounds": {"count": 2, "sample": 20, "promote": "gated"}})
    assert len(self_train(config).rounds) == 2
    with open_run(config) as run:
        extra = auxiliary_of(run)
        assert extra is not None
        assert (extra.weight, extra.probability, extra.spared) == (1.0, 0.15, spared_by(run.prompt))
        assert teacher_recipe(run, 4).auxiliary == student_recipe(run, 1, 8).auxiliary == extra
    assert Predictor.open(tmp_path / "run").logits(["w1 fine"]).shape == (1, 2)


def test_a_plain_stage_has_none(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    overlay = tiny_overlay(tiny_files, tmp_path / "run") | {"stage": {"kind": "soft_prompt", "tokens": 4}}
    with open_run(build_config("released", overlay)) as run:
        assert auxiliary_of(run) is None


@pytest.mark.long
def test_a_killed_run_ends_with_the_same_bytes(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    stage = {"kind": "soft_prompt_mlm", "tokens": 4}
    killed_and_resumed(tiny_files, tmp_path, kills=1, dropout=True, seed=5, stage=stage)
