"""The prefix: attention over keys and values put first, gated or not, and kept without its MLP."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from meta_step import TASK
from stage_models import (
    HEADS,
    LAYERS,
    SHAPED_LIKE_BERT,
    TEXTS,
    D,
    batch_of,
    build,
    logits,
    perturb,
    small,
)
from tiny import CONFIGS, tiny_backbone, tiny_overlay
from torch import Tensor, nn
from transformers import DynamicCache

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Batch
from listflow.pipeline.backbone.families import FAMILIES
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.layers.attention import SelfAttention
from listflow.pipeline.model.classifier import flat, logits_of
from listflow.pipeline.model.verbalizer import label_word_ids
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.stages.prefix import FlatPrefix, Prefix
from listflow.pipeline.stages.presets import stages
from listflow.pipeline.storage.checkpoint import load_tensors, read_json
from listflow.pipeline.training.rounds import load_model

MLP = {"prefix_mlp": {"mlp": 6}, "prefix_neutral": {"mlp": 6}, "prefix": {"mlp": 6, "composition": "scaled"}}


@pytest.mark.parametrize("mlp", [0, 6])
@pytest.mark.parametrize("composition", ["add", "scaled"])
def test_an_ungated_prefix_with_values_at_zero_is_the_identity(composition: str, mlp: int) -> None:
    """M4: without the gate, P_v = 0 adds nothing."""
    chosen = small("prefix", composition=composition, init="lora", mlp=mlp)
    assert chosen[0].starts_as_identity == "exact"
    backbone = tiny_backbone()
    batch = batch_of(backbone)
    plain = logits(build("none", backbone), batch)
    torch.testing.assert_close(logits(build(chosen, backbone), batch), plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mlp", [0, 6])
def test_a_gate_at_zero_hides_any_prefix(mlp: int) -> None:
    """M4: and the gate's own gradient is there to open it."""
    backbone = tiny_backbone()
    batch = batch_of(backbone)
    model = perturb(build(small("prefix_neutral", mlp=mlp), backbone), std=1.0)
    head = build("none", backbone).tensors()
    model.load(model.tensors() | {name: value for name, value in head.items() if name.startswith("head.")})
    gates = [p for name, p in model.tunable().items() if name.endswith("gate")]
    assert len(gates) == LAYERS
    with torch.no_grad():
        for gate in gates:
            gate.zero_()
    plain = logits(build("none", backbone), batch)
    torch.testing.assert_close(logits(model, batch), plain, rtol=1e-6, atol=1e-6)
    model(batch).square().sum().backward()
    assert all(gate.grad is not None and gate.grad.abs() > 1e-6 for gate in gates)


def own_attention(dtype: torch.dtype) -> tuple[SelfAttention, nn.Module, Tensor, Tensor]:
    """One BERT layer's attention opened, as it was, hidden states (3, 7, D), and which of them are real (3, 7)."""
    own = copy.deepcopy(tiny_backbone().layer(0).attention.self).to(dtype)
    hidden = torch.randn(3, 7, D, generator=torch.Generator().manual_seed(1)).to(dtype)
    return SelfAttention(own), own, hidden, torch.arange(7) < torch.tensor([[7], [4], [2]])


def flat_source(length: int, dtype: torch.dtype, std: float = 0.7) -> FlatPrefix:
    source = FlatPrefix(D, small("prefix", width=length, init_std=std)[0], torch.Generator().manual_seed(2))
    return source.to(dtype)


def concatenated(own: Any, source: FlatPrefix, hidden: Tensor, real: Tensor) -> Tensor:
    """Attention over [P_k; K] and [P_v; V]: what prefix tuning says it is."""
    query, key, value = own.query(hidden), own.key(hidden), own.value(hidden)
    count = len(hidden)
    key = torch.cat([source.key.expand(count, -1, -1), key], 1)
    value = torch.cat([source.value.expand(count, -1, -1), value], 1)
    seen = torch.cat([torch.ones(count, len(source.key), dtype=torch.bool), real], 1)
    outputs = []
    for columns in torch.arange(D).chunk(2):
        scores = query[..., columns] @ key[..., columns].transpose(1, 2) / len(columns) ** 0.5
        outputs.append(scores.masked_fill(~seen[:, None], float("-inf")).softmax(-1) @ value[..., columns])
    return torch.cat(outputs, -1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("additive", [True, False])
def test_the_gated_form_is_concatenation(dtype: torch.dtype, tolerance: float, additive: bool) -> None:
    """M1, with padding, for both kinds of mask that an encoder hands down."""
    attention, own, hidden, real = own_attention(dtype)
    source = flat_source(5, dtype)
    attention.extras.append(Prefix(source, small("prefix")[0]))
    mask: Tensor = real[:, None, None]
    if additive:
        mask = torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
    with torch.no_grad():
        found, expected = attention(hidden, mask)[0], concatenated(own, source, hidden, real)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def with_cache(backbone: Backbone, batch: Batch, cache: DynamicCache, length: int) -> Tensor:
    """Masked-LM logits of the label words with keys and values from ``cache`` prepended, positions left alone."""
    arange = torch.arange(batch.ids.shape[1]).expand_as(batch.ids)
    if backbone.family.counts_from_pad:
        positions = batch.attention.cumsum(1) * batch.attention + backbone.model.config.pad_token_id
    else:
        positions = arange
    attention = torch.cat([torch.ones(len(batch), length, dtype=torch.int64), batch.attention], 1)
    with torch.no_grad():
        found = backbone.model(
            input_ids=batch.ids, attention_mask=attention, position_ids=positions, past_key_values=cache
        )
    words = [word for (word,) in label_word_ids(TASK, backbone.tokenizer)]
    return found.logits[torch.arange(len(batch)), batch.mask_at][:, words]


@pytest.mark.parametrize("family", [name for name in SHAPED_LIKE_BERT if not FAMILIES[name].own])  # others: no cache
def test_a_prefix_is_what_transformers_makes_of_past_keys_and_values(family: str) -> None:
    """M1 through a whole classifier, the narrow last layer included."""
    backbone = tiny_backbone(family)
    batch = batch_of(backbone)
    model = build(small("prefix", init_std=0.7), backbone)
    cache = DynamicCache()
    for number, extra in enumerate(model.stage[0]):
        both = (x.detach().expand(len(batch), -1, -1) for x in (extra.source.key, extra.source.value))
        key, value = (x.unflatten(-1, (2, -1)).transpose(1, 2).clone() for x in both)
        cache.update(key, value, number)
    torch.testing.assert_close(logits(model, batch), with_cache(backbone, batch, cache, 4), rtol=1e-5, atol=1e-5)


def test_a_prefix_of_zeros_shrinks_the_heads() -> None:
    """M3: every slot scores 0, so lam = l / (l + sum_j exp a_j); peft calls this start a no-op, and it is none."""
    attention, own, hidden, real = own_attention(torch.float64)
    with torch.no_grad():
        base = attention(hidden, real[:, None, None])[0]
        source = flat_source(5, torch.float64)
        source.key.zero_()
        source.value.zero_()
        attention.extras.append(Prefix(source, small("prefix")[0]))
        found = attention(hidden, real[:, None, None])[0]
        query, key = own.query(hidden), own.key(hidden)
        parts = []
        for columns in torch.arange(D).chunk(2):
            scores = query[..., columns] @ key[..., columns].transpose(1, 2) / len(columns) ** 0.5
            content = scores.masked_fill(~real[:, None], float("-inf")).exp().sum(-1, keepdim=True)
            parts.append((1 - 5 / (5 + content)) * base[..., columns])
    torch.testing.assert_close(found, torch.cat(parts, -1), rtol=1e-12, atol=1e-12)
    assert (found - base).abs().max() > 0.1


def test_a_prefix_through_an_mlp_is_the_flat_prefix_that_it_makes() -> None:
    """M5."""
    backbone = tiny_backbone()
    batch = batch_of(backbone)
    through = build(small("prefix_mlp", mlp=8, init_std=0.5), backbone)
    plain = build(small("prefix"), backbone)
    assert not torch.allclose(logits(plain, batch), logits(through, batch), atol=1e-3)
    with torch.no_grad():
        for number, extra in enumerate(plain.stage[0]):
            key, value = through.stage[0][0].of_layer(number)
            extra.source.key.copy_(key)
            extra.source.value.copy_(value)
    torch.testing.assert_close(logits(plain, batch), logits(through, batch), rtol=1e-6, atol=1e-6)


def test_the_order_of_prefix_slots_means_nothing() -> None:
    """M6: but a key belongs to its value."""
    backbone = tiny_backbone()
    batch = batch_of(backbone)
    model = build(small("prefix", init_std=0.7), backbone)
    before = logits(model, batch)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        for extra in model.stage[0]:
            extra.source.key.copy_(extra.source.key[order])
        only_keys = logits(model, batch)
        for extra in model.stage[0]:
            extra.source.value.copy_(extra.source.value[order])
    torch.testing.assert_close(logits(model, batch), before, rtol=1e-5, atol=1e-5)
    assert (only_keys - before).abs().max() > 1e-3


@pytest.mark.parametrize("preset", ["prefix", "prefix_mlp", "mam", "multihead_parallel"])
@pytest.mark.parametrize("head", HEADS)
def test_padding_and_company_do_not_change_a_row(preset: str, head: str) -> None:
    """M11: neither what stands in the padding, nor how much of it there is."""
    backbone = tiny_backbone()
    model = perturb(build(preset, backbone, head), std=0.2)
    encoded = Prompt(TASK, backbone.tokenizer, 32).encode(TEXTS)
    batch = encoded.batch(range(3))
    together = logits(model, batch)
    alone = torch.cat([logits(model, encoded.batch([i])) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert (batch.attention == 0).any()
    scribbled = Batch(torch.where(batch.attention == 0, 7, batch.ids), batch.attention, batch.mask_at)
    torch.testing.assert_close(logits(model, scribbled), together, rtol=1e-5, atol=1e-5)


def test_every_row_sees_the_whole_prefix() -> None:
    """M11: prefix positions are never masked, not even where a row is mostly padding."""
    backbone = tiny_backbone()
    batch = batch_of(backbone)
    model = build(small("prefix", init_std=0.5), backbone)
    before = logits(model, batch)
    for slot in range(4):
        with torch.no_grad():
            for extra in model.stage[0]:
                extra.source.value[slot] += 1.0
        after = logits(model, batch)
        assert ((after - before).abs().amax(1) > 1e-4).all()
        before = after


@pytest.mark.parametrize("family", SHAPED_LIKE_BERT)
@pytest.mark.parametrize("length", [1, 40])
def test_position_ids_do_not_know_of_the_prefix(family: str, length: int) -> None:
    """M13. A prefix may also be longer than the hidden size, which a bottleneck may not."""
    backbone = tiny_backbone(family)
    batch = batch_of(backbone)
    model = build(small("prefix", width=length), backbone)
    seen: list[Tensor] = []
    model.encoder.embeddings.register_forward_hook(lambda module, given, found: seen.append(found))
    logits(model, batch)
    with torch.no_grad():
        torch.testing.assert_close(seen, [backbone.model.base_model.embeddings(batch.ids)], rtol=0, atol=0)


@pytest.mark.parametrize("preset", ["prefix", "prefix_mlp", "prefix_neutral", "multihead_parallel", "mam"])
@pytest.mark.parametrize("family", [family for family in CONFIGS if family not in SHAPED_LIKE_BERT])
def test_attention_of_another_shape_takes_no_prefix(family: str, preset: str) -> None:
    with pytest.raises(
        InputError, match=f"'{family}' backbone takes no prefix.*use one of type albert, bert, .* xlm-roberta, or"
    ):
        build(preset, tiny_backbone(family))


@pytest.mark.parametrize("projected", [False, True])
def test_a_prefix_gives_the_logits_of_peft(projected: bool) -> None:
    """peft's keys and values in our layers; given the position ids that it would shift."""
    peft = pytest.importorskip("peft")
    backbone = tiny_backbone()
    batch = batch_of(backbone)
    config = peft.PrefixTuningConfig(
        task_type="FEATURE_EXTRACTION", num_virtual_tokens=4, prefix_projection=projected, encoder_hidden_size=6
    )
    torch.manual_seed(0)
    theirs = peft.get_peft_model(copy.deepcopy(backbone.model.base_model), config).eval()
    with torch.no_grad():
        cache = theirs.get_prompt(len(batch))
    model = build("prefix", backbone)
    prompts = theirs.get_prompt_embedding_to_save("default")
    with torch.no_grad():
        per_layer = prompts.reshape(4, 2 * LAYERS, D)
        for number, extra in enumerate(model.stage[0]):
            extra.source.key.copy_(per_layer[:, 2 * number])
            extra.source.value.copy_(per_layer[:, 2 * number + 1])
    expected = with_cache(backbone, batch, getattr(cache, "self_attention_cache", cache), 4)
    torch.testing.assert_close(logits(model, batch), expected, rtol=1e-5, atol=1e-5)
    assert (logits(build("none", backbone), batch) - expected).abs().max() > 1e-2


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
