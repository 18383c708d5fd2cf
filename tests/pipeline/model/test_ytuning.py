"""Heads that read every token: Y-tuning's label decoder, and the linear baseline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from meta_step import TASK, step_of
from tiny import CONFIGS, tiny_backbone, tiny_overlay
from torch import Tensor

from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Batch, Encoded
from listflow.pipeline.backbone.cache import with_features
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.method.reweight import ENGINES, Step, fused
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.config import AnyHead, LinearHead, YTuningHead
from listflow.pipeline.model.verbalizer import label_word_ids
from listflow.pipeline.model.ytuning import Block, Reading, class_mean, triplet
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.stages.presets import stages
from listflow.pipeline.training.plan import make_plan
from listflow.pipeline.training.trainer import Material, Recipe, Trainer

TEXTS = [("w1 w2 good", None), ("w3 w4 w5 w6 poor w7 w8 w9 w10", None), ("w9", None)]
D, CLASSES = 32, 3


def build(head: AnyHead, backbone: Backbone | None = None, stage: str = "none", seed: int = 0) -> Classifier:
    backbone = backbone or tiny_backbone()
    words = label_word_ids(TASK, backbone.tokenizer)
    return Classifier(backbone, stages(stage, **({"width": 4} if stage == "list" else {})), head, words, seed)


def ytuning(**values: Any) -> YTuningHead:
    return YTuningHead(**({"width": 16} | values))


def encoded_by(backbone: Backbone) -> Encoded:
    return Prompt(TASK, backbone.tokenizer, 32).encode(TEXTS)


def features() -> tuple[Tensor, Batch]:
    """Features (3, 8, D) of which 8, 5 and 2 are of real tokens, and the batch that says so."""
    attention = (torch.arange(8) < torch.tensor([[8], [5], [2]])).long()
    hidden = torch.randn(3, 8, D, generator=torch.Generator().manual_seed(1))
    return hidden, Batch(torch.full((3, 8), 6), attention, torch.tensor([3, 2, 1]))


@torch.no_grad()
def perturb(model: Classifier, std: float = 0.1) -> Classifier:
    generator = torch.Generator().manual_seed(3)
    for parameter in model.tunable().values():
        parameter += std * torch.randn(parameter.shape, generator=generator)
    return model


# Y-tuning


@pytest.mark.filterwarnings("ignore:For backward hooks to be called", "ignore:Full backward hook is firing")
@pytest.mark.parametrize(("stage", "reached"), [("none", False), ("list", True)])
def test_no_gradient_goes_through_the_backbone(stage: str, reached: bool) -> None:
    """Y1: under stage none; under another one gradients pass, so the hooks would have seen them."""
    backbone = tiny_backbone()
    model = build(ytuning(), backbone, stage)
    calls: list[Any] = []
    for part in (model.below, model.encoder):
        for module in [] if part is None else part.modules():
            module.register_full_backward_hook(lambda *given: calls.append(given))
    model.head.labelled_loss(model(encoded_by(backbone).batch(range(3))), torch.tensor([0, 1, 2])).backward()
    assert all(p.grad is None for p in backbone.model.parameters())
    assert all(p.grad is not None for p in model.tunable().values())
    assert bool(calls) == reached


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_training_on_kept_features_is_training_on_computed_ones(family: str, tmp_path: Path) -> None:
    """Y2, bit by bit where batches are padded alike; up to rounding where U and V pass the layers below together."""
    backbone = tiny_backbone(family)
    computed = encoded_by(backbone)
    kept = with_features(computed, backbone, backbone.n_layers, tmp_path / "kept", "key", lambda rows: None)
    assert kept.batch([0]).hidden is not None
    recipe = Recipe((("labelled", 5),), learning_rate=0.01, batch=3, labelled_batch=3)
    soft, gold = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]), torch.tensor([0, 1, 2])
    tensors, scores = [], []
    for encoded in (computed, kept):
        model = build(ytuning(), backbone)
        start = model.tensors()
        Trainer(model, recipe, Material(encoded, gold)).run()
        tensors.append(model.tensors())
        assert not torch.equal(tensors[-1]["head.labels"], start["head.labels"])
        step = Step(encoded.batch(range(3)), soft, encoded.batch([2, 0]), gold[[2, 0]])
        scores.append(fused(model, list(model.tunable().values()), step).scores)
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(value, tensors[1][name]) for name, value in tensors[0].items())
    assert torch.linalg.norm(scores[0] - scores[1]) <= 1e-5 * torch.linalg.norm(scores[0])


def test_label_vectors_that_cannot_start_from_words_say_so(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    backbone = tiny_backbone("electra")
    for part in (backbone.model, backbone.tokenizer):
        part.save_pretrained(tmp_path / "electra")
    overlay = tiny_overlay(tiny_files | {"backbone": tmp_path / "electra"}, tmp_path / "run")
    for start, told in (("words", True), ("normal", False)):
        head = {"kind": "ytuning", "width": 16, "start": start}
        notices = make_plan(build_config("fast", overlay, {"head": head})).notices
        assert any("start at random" in notice for notice in notices) == told


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("score", ["dot", "scaled_dot", "cosine", "distance"])
def test_scores_follow_the_labels(score: str, pool: str) -> None:
    """Y3: labels have no positions, so permuting them with their K vectors permutes the scores."""
    model = perturb(build(ytuning(score=score, pool=pool, vectors=2, blocks=2, temperature=1.0)))
    hidden, batch = features()
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        before = model.head(hidden, batch)
        labels = model.head.labels
        labels.copy_(labels.unflatten(0, (CLASSES, 2))[order].flatten(0, 1))
        after = model.head(hidden, batch)
    torch.testing.assert_close(after, before[:, order], rtol=1e-5, atol=1e-5)
    assert (after - before).abs().max() > 1e-3


def test_masked_features_leave_the_scores_alone() -> None:
    """Y4: neither more of them nor other ones."""
    model = perturb(build(ytuning(temperature=1.0, blocks=2)))
    hidden, batch = features()
    wider = Batch(*(F.pad(part, (0, 5)) for part in (batch.ids, batch.attention)), batch.mask_at)
    noise = 9 * torch.randn(3, 13, D, generator=torch.Generator().manual_seed(2))
    padded = torch.where(wider.attention.unsqueeze(-1).bool(), F.pad(hidden, (0, 0, 0, 5)), noise)
    with torch.no_grad():
        before = model.head(hidden, batch)
        torch.testing.assert_close(model.head(padded, wider), before, rtol=1e-5, atol=1e-5)
        unmasked = model.head(padded, replace(wider, attention=torch.ones_like(wider.attention)))
    assert (unmasked - before).abs().max() > 1e-3


def test_invisible_tokens_are_not_read() -> None:
    """Cutoff hides tokens from the head as well, since nothing but the head is trained."""
    model = perturb(build(ytuning(temperature=1.0)))
    hidden, batch = features()
    visible = batch.attention.clone()
    visible[0, 4:6] = 0
    other = hidden.clone()
    other[0, 4:6] += 3.0
    with torch.no_grad():
        hiding = replace(batch, visible=visible)
        assert torch.equal(model.head(hidden, hiding), model.head(other, hiding))
        assert not torch.allclose(model.head(hidden, batch), model.head(other, batch), atol=1e-4)


def test_the_triplet_loss_of_known_scores() -> None:
    """Y5: 0 beyond the margin, the margin where all tie, and the mean over wrong classes in between."""
    gold = torch.tensor([0, 2])
    assert triplet(torch.tensor([[2.0, 1.0, 0.5], [-1.0, 0.0, 1.0]]), gold, 0.5).tolist() == [0, 0]
    assert triplet(torch.full((2, 3), 7.0), gold, 0.5).tolist() == [0.5, 0.5]
    assert triplet(torch.tensor([[1.0, 1.25, 0.0], [0.0, 1.0, 2.0]]), gold, 0.5).tolist() == [(0.5 + 0.25) / 2, 0]
    assert triplet(torch.tensor([[1.0, 1.0]]), torch.tensor([1]), 0.25).tolist() == [0.25]


def test_the_classes_of_a_batch_count_the_same() -> None:
    each, gold = torch.tensor([1.0, 2.0, 3.0, 10.0]), torch.tensor([2, 2, 2, 0])
    torch.testing.assert_close(class_mean(each, gold), torch.tensor((2.0 + 10.0) / 2))
    model, logits = build(ytuning(loss="cross_entropy")), torch.zeros(4, CLASSES)
    logits[:, 2] = 3.0
    found = F.cross_entropy(logits, gold, reduction="none")
    torch.testing.assert_close(model.head.labelled_loss(logits, gold), (found[0] + found[3]) / 2)
    by_rows = build(ytuning(loss="cross_entropy", balanced=False))
    torch.testing.assert_close(by_rows.head.labelled_loss(logits, gold), found.mean())


def test_the_head_takes_the_margin_from_scores_not_logits() -> None:
    """Logits are scores over the temperature, which the margin knows nothing of."""
    model = build(ytuning(temperature=0.25, margin=0.5))
    scores, gold = torch.tensor([[1.0, 0.75, 0.0]]), torch.tensor([0])
    torch.testing.assert_close(model.head.labelled_loss(scores / 0.25, gold), torch.tensor((0.25 + 0.0) / 2))
    other = build(ytuning(temperature=0.25, loss="cross_entropy"))
    torch.testing.assert_close(other.head.labelled_loss(scores / 0.25, gold), F.cross_entropy(scores / 0.25, gold))


def test_the_temperature_divides_the_scores() -> None:
    hidden, batch = features()
    found = []
    for temperature in (1.0, 0.1):
        with torch.no_grad():
            found.append(build(ytuning(temperature=temperature)).head(hidden, batch))
    torch.testing.assert_close(found[1], 10 * found[0])


def test_the_distance_form_is_the_pointer_form_of_its_negative() -> None:
    """Y6: with d = -s, the hinge is the one on distances."""
    model = perturb(build(ytuning(score="distance", temperature=1.0)), std=0.3)
    hidden, batch = features()
    gold = torch.tensor([1, 0, 2])
    with torch.no_grad():
        scores = model.head(hidden, batch)
    distances = -scores
    assert (distances > 0).all()
    hinges = [
        max(float(distances[row, gold[row]] - distances[row, c]) + 0.5, 0.0)
        for row in range(3)
        for c in range(CLASSES)
        if c != gold[row]
    ]
    assert any(hinges)
    torch.testing.assert_close(model.head.labelled_loss(scores, gold), torch.tensor(sum(hinges) / len(hinges)))


@pytest.mark.parametrize(("score", "sizes"), [("dot", 1.0), ("scaled_dot", 16**-0.5)])
def test_scores_are_of_the_task_row_and_a_label_row(score: str, sizes: float) -> None:
    head = build(ytuning(score=score)).head
    task, labels = torch.randn(2, 1, 16), torch.randn(2, CLASSES, 16)
    expected = sizes * torch.einsum("bw,bcw->bc", task[:, 0], labels)
    torch.testing.assert_close(head._scores(task, labels), expected)


def test_cosine_and_distance_are_those_of_geometry() -> None:
    task, labels = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[3.0, 4.0], [0.0, 0.0], [-4.0, 3.0]]])
    cosine, distance = (build(ytuning(score=score)).head._scores(task, labels) for score in ("cosine", "distance"))
    torch.testing.assert_close(cosine, torch.tensor([[1.0, 0.0, 0.0]]))
    torch.testing.assert_close(distance, torch.tensor([[0.0, -5.0, -(50**0.5)]]), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    "values",
    [
        {"score": "dot", "temperature": 1.0},
        {"score": "scaled_dot", "vectors": 3, "pool": "max"},
        {"score": "cosine", "vectors": 2, "blocks": 2},
        {"score": "distance", "start": "uniform", "heads": 2},
    ],
)
def test_every_engine_equals_the_unrolled_step(values: dict[str, Any]) -> None:
    """Y7."""
    backbone = tiny_backbone()
    model = perturb(build(ytuning(**values), backbone))
    parameters, step = list(model.tunable().values()), step_of(Prompt(TASK, backbone.tokenizer, 48), seed=5)
    found = {}
    for engine in ("higher", "fused", "jvp"):
        scores = ENGINES[engine](model, parameters, step).scores
        found[engine] = scores, torch.cat([p.grad.flatten() for p in parameters])
    for engine in ("fused", "jvp"):
        for got, expected in zip(found[engine], found["higher"], strict=True):
            assert torch.linalg.norm(got - expected) <= 1e-5 * torch.linalg.norm(expected), engine


def test_met_margins_do_not_silence_the_meta_step() -> None:
    """The hinge is flat beyond the margin; the engines take cross-entropy of the labelled rows instead."""
    backbone = tiny_backbone()
    model = perturb(build(ytuning(margin=1e-6), backbone))
    parameters, step = list(model.tunable().values()), step_of(Prompt(TASK, backbone.tokenizer, 48), seed=5)
    with torch.no_grad():
        met = replace(step, gold=model(step.labelled).argmax(-1))
    loss = model.head.labelled_loss(model(met.labelled), met.gold)
    assert loss == 0
    assert not any(g.any() for g in torch.autograd.grad(loss, parameters))
    found = fused(model, parameters, met)
    assert found.scores.abs().min() > 0
    torch.testing.assert_close(found.weights.sum(), torch.tensor(1.0))


@pytest.mark.parametrize("blocks", [1, 2])
def test_other_features_give_other_scores(blocks: int) -> None:
    """Y8: a decoder that does not look at the text would pass everything else."""
    model = build(ytuning(blocks=blocks, temperature=1.0))
    hidden, batch = features()
    with torch.no_grad():
        before = model.head(hidden, batch)
        for row in range(3):
            other = hidden.clone()
            other[row, 0] += 2.0
            changed = (model.head(other, batch) - before).abs().amax(1) > 1e-3
            assert changed.tolist() == [i == row for i in range(3)]


@pytest.mark.parametrize(("width", "blocks", "vectors"), [(16, 1, 1), (24, 2, 3)])
def test_the_count_is_that_of_blocks_rows_and_the_way_in(width: int, blocks: int, vectors: int) -> None:
    """16 W^2 + 18 W a block (a key has no bias); two LayerNorms, of the text as it comes in and of what goes out."""
    model = build(ytuning(width=width, blocks=blocks, vectors=vectors))
    found = sum(p.numel() for p in model.tunable().values())
    around = (D + 1) * width + 2 * 2 * width + (1 + CLASSES * vectors) * width
    assert found == blocks * (16 * width**2 + 18 * width) + around


def test_reading_is_multi_head_attention() -> None:
    """The same as keys and values made of every token, whatever the bias of the keys."""
    width, heads = 12, 3
    reading = Reading(width, heads).double()
    rows, text = torch.randn(2, 4, width, dtype=torch.float64), torch.randn(2, 7, width, dtype=torch.float64)
    seen = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0]])
    query = reading.query(rows).unflatten(-1, (heads, -1)).transpose(1, 2)
    keys = torch.stack([text @ key.weight + torch.randn(width // heads) for key in reading.keys], 1)
    values = torch.stack([value(text) for value in reading.values], 1)
    expected = F.scaled_dot_product_attention(query, keys, values, seen[:, None, None].bool().expand(-1, -1, 4, -1))
    torch.testing.assert_close(reading(rows, text, seen), reading.out(expected.transpose(1, 2).flatten(2)))


def test_a_width_like_the_features_needs_no_way_in() -> None:
    assert not [name for name in build(ytuning(width=D)).tunable() if name.startswith("head.into")]


def test_a_fresh_block_adds_the_mean_of_the_text_to_every_row() -> None:
    block, rows, text = Block(8, 2), torch.randn(3, 4, 8), torch.randn(3, 6, 8)
    block.start()
    seen = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
    mean = (text * seen.unsqueeze(-1)).sum(1) / seen.sum(1, keepdim=True)
    assert torch.allclose(block(rows, text, seen), rows + mean.unsqueeze(1), atol=1e-6)


def test_labels_start_from_their_words() -> None:
    """The first of K vectors; the others at random."""
    backbone = tiny_backbone()
    head = build(ytuning(vectors=2, start="words"), backbone).head
    words = backbone.word_rows[[word for (word,) in label_word_ids(TASK, backbone.tokenizer)]]
    with torch.no_grad():
        brought = F.layer_norm(head.into(words), (16,))
        first, second = head.labels.unflatten(0, (CLASSES, 2)).unbind(1)
        assert F.cosine_similarity(first, brought).min() > 0.99
        assert second.abs().max() < 0.2
        plain = build(ytuning(vectors=2, start="normal"), backbone).head.labels
        assert plain.abs().max() < 0.2
        uniform = build(ytuning(vectors=2, start="uniform"), backbone).head.labels
        assert 0.05 < uniform.abs().max() <= 0.1


def test_the_start_is_the_seeds() -> None:
    backbone = tiny_backbone()
    one, same, other = (build(ytuning(), backbone, seed=seed).tensors() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head.labels"], other["head.labels"])
    assert not torch.equal(one["head.into.weight"], other["head.into.weight"])


@pytest.mark.parametrize("family", CONFIGS)
def test_padding_and_company_do_not_change_a_row(family: str) -> None:
    """ELECTRA's words are narrower than its features, so its labels start at random."""
    backbone = tiny_backbone(family)
    model, encoded = perturb(build(ytuning(temperature=1.0), backbone)), encoded_by(backbone)
    with torch.no_grad():
        together = model(encoded.batch(range(3)))
        alone = torch.cat([model(encoded.batch([i])) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_width_is_divided_among_the_heads() -> None:
    with pytest.raises(ValueError, match="width 18 cannot be divided among 4 heads"):
        ytuning(width=18)
    assert ytuning(width=18, heads=3).width == 18


# The linear head


def test_the_mean_is_over_real_tokens() -> None:
    """Pooled features are brought to length sqrt(D): each row's scale is nothing that the labels can see."""
    head = build(LinearHead(pool="mean")).head
    hidden, batch = features()
    for row, length in enumerate((8, 5, 2)):
        mean = hidden[row, :length].mean(0)
        expected = head.out(mean / mean.norm() * D**0.5)
        torch.testing.assert_close(head(hidden, batch)[row], expected, rtol=1e-5, atol=1e-6)


def test_the_mean_leaves_out_invisible_tokens() -> None:
    head = build(LinearHead(pool="mean")).head
    hidden, batch = features()
    visible = batch.attention.clone()
    visible[0, 5:] = 0
    shorter = Batch(batch.ids, visible, batch.mask_at)
    assert torch.equal(head(hidden, replace(batch, visible=visible)), head(hidden, shorter))
    assert not torch.allclose(head(hidden, batch)[0], head(hidden, shorter)[0], atol=1e-4)


@pytest.mark.parametrize("pool", ["mean", "first", "mask"])
def test_pooling_ignores_padding(pool: str) -> None:
    backbone = tiny_backbone()
    model, encoded = build(LinearHead(pool=pool), backbone), encoded_by(backbone)
    with torch.no_grad():
        together = model(encoded.batch(range(3)))
        alone = torch.cat([model(encoded.batch([i])) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stage", ["none", "list"])
@pytest.mark.parametrize(("pool", "column"), [("first", 0), ("mask", None)])
def test_first_and_mask_read_one_token(pool: str, column: int | None, stage: str) -> None:
    """With a stage, the mask's features come from the narrow last layer."""
    backbone = tiny_backbone()
    model, batch = build(LinearHead(pool=pool), backbone, stage), encoded_by(backbone).batch(range(3))
    at = batch.mask_at if column is None else torch.full((3,), column)
    with torch.no_grad():
        found = backbone.model.base_model(batch.ids, attention_mask=batch.attention).last_hidden_state
        expected = model.head.out(F.normalize(found[torch.arange(3), at], dim=-1) * D**0.5)
        torch.testing.assert_close(model(batch), expected, rtol=1e-4, atol=1e-4)
    assert len({*model.tunable()} - {"head.out.weight", "head.out.bias"}) == (8 if stage == "list" else 0)


def test_the_linear_heads_loss_is_cross_entropy() -> None:
    logits, gold = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]]), torch.tensor([0, 1])
    expected = -(logits.softmax(-1)[torch.arange(2), gold]).log().mean()
    torch.testing.assert_close(build(LinearHead()).head.labelled_loss(logits, gold), expected)
