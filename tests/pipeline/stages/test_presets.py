"""The unified family and BitFit: exact gradients, the algebra of every form, and the refusals that they come with."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from meta_step import TASK
from stage_models import (
    HEADS,
    IN_LAYERS,
    LAYERS,
    SHAPED_LIKE_BERT,
    TEXTS,
    D,
    batch_of,
    build,
    check_engines,
    close,
    logits,
    perturb,
    small,
    stage_count,
)
from tiny import CONFIGS, tiny_backbone
from torch import Tensor, nn
from transformers import DynamicCache

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Batch
from listflow.pipeline.backbone.layers import SelfAttention
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.model.classifier import first_tuned_layer
from listflow.pipeline.model.verbalizer import label_word_ids
from listflow.pipeline.stages.config import BitFit, NoStage, Unified
from listflow.pipeline.stages.prefix import FlatPrefix, Prefix
from listflow.pipeline.stages.presets import stages
from listflow.pipeline.training.trainer import Material, Recipe, Trainer

# Engines


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("preset", IN_LAYERS)
def test_every_engine_equals_the_unrolled_step(preset: str, head: str) -> None:
    backbone = tiny_backbone()
    check_engines(perturb(build(preset, backbone, head)), Prompt(TASK, backbone.tokenizer, 48))


@pytest.mark.parametrize(
    ("family", "preset", "head"),
    [(family, "list", "ytuning") for family in CONFIGS if family != "bert"]
    + [(family, "lora", "verbalizer") for family in ("distilbert", "electra", "roberta")]
    + [(family, "scaled_parallel", "verbalizer") for family in ("deberta-v2", "modernbert")]
    + [(family, "bitfit", "linear") for family in CONFIGS if family not in {"bert", "modernbert"}]
    + [("electra", "prefix_mlp", "verbalizer"), ("roberta", "mam", "linear")],
)
def test_every_engine_equals_the_unrolled_step_on_other_families(family: str, preset: str, head: str) -> None:
    backbone = tiny_backbone(family)
    check_engines(perturb(build(preset, backbone, head)), Prompt(TASK, backbone.tokenizer, 48))


@pytest.mark.parametrize(
    "values",
    [
        {"form": "gelu", "composition": "scaled", "scale": 3.0, "learned_scale": True, "bias": True},
        {"form": "relu", "place": ["embeddings", "ffn_output"], "bias": True, "init": "lora"},
        {"place": ["attention_key", "ffn_intermediate"], "insertion": "parallel"},
        {"place": ["attention_query", "attention_output"], "layers": [1]},
        {"form": "softmax", "place": ["attention_heads"], "insertion": "parallel", "composition": "scaled", "mlp": 6},
    ],
    ids=["learned scale", "embeddings", "key and intermediate", "one layer", "ungated prefix"],
)
def test_every_engine_equals_the_unrolled_step_away_from_the_presets(values: dict[str, Any]) -> None:
    backbone = tiny_backbone()
    model = build(stages({"kind": "unified", "width": 4} | values), backbone)
    check_engines(perturb(model), Prompt(TASK, backbone.tokenizer, 48))


# Identity at the start


@pytest.mark.parametrize("preset", IN_LAYERS)
def test_the_start_is_the_identity_where_the_config_says_so(preset: str) -> None:
    backbone = tiny_backbone()
    batch, chosen = batch_of(backbone), small(preset)
    plain, found = logits(build("none", backbone), batch), logits(build(chosen, backbone), batch)
    kinds = {stage.starts_as_identity for stage in chosen}
    difference = float((found - plain).abs().max())
    if kinds == {"exact"}:
        torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-6)
    elif "no" in kinds:
        assert difference > 1e-4
    else:
        assert 0 < difference < 1e-4


def test_each_kind_of_start_has_a_preset() -> None:
    """Keeps the test above from passing for want of cases."""
    starts = {name: {stage.starts_as_identity for stage in small(name)} for name in IN_LAYERS}
    exact = {name for name, kinds in starts.items() if kinds == {"exact"}}
    assert exact == {"multihead_parallel", "scaled_parallel", "lora", "prefix_neutral", "bitfit", "none"}
    assert starts["list"] == {"near"}
    assert starts["prefix"] == {"no"}
    assert starts["mam"] == {"no", "exact"}


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


# The prefix


def own_attention(dtype: torch.dtype) -> tuple[SelfAttention, nn.Module, Tensor, Tensor]:
    """One BERT layer's attention opened, as it was, hidden states (3, 7, D), and which of them are real (3, 7)."""
    own = copy.deepcopy(tiny_backbone().layer(0).attention.self).to(dtype)
    hidden = torch.randn(3, 7, D, generator=torch.Generator().manual_seed(1)).to(dtype)
    return SelfAttention(own), own, hidden, torch.arange(7) < torch.tensor([[7], [4], [2]])


def flat(length: int, dtype: torch.dtype, std: float = 0.7) -> FlatPrefix:
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
    source = flat(5, dtype)
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
    positions = batch.attention.cumsum(1) * batch.attention if backbone.model.config.model_type == "roberta" else arange
    attention = torch.cat([torch.ones(len(batch), length, dtype=torch.int64), batch.attention], 1)
    with torch.no_grad():
        found = backbone.model(
            input_ids=batch.ids, attention_mask=attention, position_ids=positions, past_key_values=cache
        )
    words = label_word_ids(TASK, backbone.tokenizer, backbone.word_rows)
    return found.logits[torch.arange(len(batch)), batch.mask_at][:, words]


@pytest.mark.parametrize("family", SHAPED_LIKE_BERT)
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
        source = flat(5, torch.float64)
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


# Bottlenecks


@pytest.mark.parametrize(
    ("preset", "last"), [("scaled_parallel", "up"), ("lora", "up"), ("multihead_parallel", "up"), ("prefix", "value")]
)
def test_the_scale_is_linear(preset: str, last: str) -> None:
    """M8: s on the outside is s inside W_u, or inside P_v of a prefix without a gate."""
    backbone = tiny_backbone()
    batch = batch_of(backbone)
    scaled = perturb(build(small(preset, composition="scaled", scale=4.0), backbone), std=0.1)
    before, tensors = logits(scaled, batch), scaled.tensors()
    plain = build(small(preset, composition="scaled", scale=1.0), backbone)
    plain.load(tensors)
    assert (logits(plain, batch) - before).abs().max() > 1e-3
    plain.load({name: 4 * value if last in name.split(".") else value for name, value in tensors.items()})
    torch.testing.assert_close(logits(plain, batch), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("preset", ["scaled_parallel", "lora"])
def test_a_trained_scale_is_the_fixed_one_at_first(preset: str) -> None:
    """M8: s as a trained number."""
    backbone = tiny_backbone()
    batch = batch_of(backbone)
    scaled = perturb(build(small(preset, scale=4.0), backbone), std=0.1)
    before, tensors = logits(scaled, batch), scaled.tensors()
    learned = build(small(preset, scale=4.0, learned_scale=True), backbone)
    learned.load(learned.tensors() | tensors)
    torch.testing.assert_close(logits(learned, batch), before, rtol=1e-6, atol=1e-6)


def sub_layer(layer: Any, family: str, place: str, x: Tensor, change: Any, reads_input: bool) -> Tensor:
    """The sub-layer at ``place`` written out, with ``change`` of its input or of its output added."""

    def joined(x: Tensor, h: Tensor) -> Tensor:
        return x + h + change(x if reads_input else h)

    if family == "distilbert":
        return layer.output_layer_norm(joined(x, layer.ffn(x)))
    if place == "attention_output":
        return layer.attention.output.LayerNorm(joined(x, layer.attention.output.dense(layer.attention.self(x)[0])))
    return layer.output.LayerNorm(joined(x, layer.output.dense(layer.intermediate(x))))


@pytest.mark.parametrize(
    ("family", "place"),
    [("bert", "attention_output"), ("bert", "ffn_output"), ("electra", "ffn_output"), ("distilbert", "ffn_output")],
)
@pytest.mark.parametrize("form", ["linear", "relu", "gelu"])
def test_parallel_reads_the_input_and_sequential_the_output(family: str, place: str, form: str) -> None:
    """M12, against the sub-layers written out."""
    backbone = tiny_backbone(family)
    x = torch.randn(2, 5, D, generator=torch.Generator().manual_seed(4))
    found = {}
    for insertion in ("sequential", "parallel"):
        values = {"form": form, "place": [place], "insertion": insertion, "width": 4, "init_std": 0.5, "layers": [0]}
        model = build(stages({"kind": "unified"} | values), backbone, "linear")
        layer = model.encoder.get_submodule(backbone.layers_in_view)[0]
        bare, bottleneck = backbone.layer(0), model.stage[0][0]
        activation = {"linear": lambda y: y, "relu": F.relu, "gelu": F.gelu}[form]

        def change(y: Tensor, bottleneck: Any = bottleneck, activation: Any = activation) -> Tensor:
            return activation(y @ bottleneck.down.weight.T) @ bottleneck.up.weight.T

        with torch.no_grad():
            if place == "attention_output":
                expected = sub_layer(bare, family, place, x, change, insertion == "parallel")
                attention = layer.attention(x)
                got = attention[0] if isinstance(attention, tuple) else attention
            else:
                attended = bare.attention(x)
                attended = attended[0] if isinstance(attended, tuple) else attended
                attended = bare.sa_layer_norm(attended + x) if family == "distilbert" else attended
                expected = sub_layer(bare, family, place, attended, change, insertion == "parallel")
                output = layer(x)
                got = output[0] if isinstance(output, tuple) else output
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        found[insertion] = got
    assert (found["sequential"] - found["parallel"]).abs().max() > 1e-2


@pytest.mark.parametrize("preset", ["lora", "scaled_parallel", "multihead_parallel"])
def test_a_start_from_zero_moves_the_upper_factor_first(preset: str) -> None:
    """M10: the lower factor's gradient is exactly 0 as long as the upper one is."""
    backbone = tiny_backbone()
    model = build(preset, backbone)
    F.cross_entropy(model(batch_of(backbone)), torch.tensor([0, 1, 2])).backward()
    named = {name: p for name, p in model.tunable().items() if name.startswith("stage.") and "bias" not in name}
    lower = [p for name, p in named.items() if ".down" in name]
    upper = [p for name, p in named.items() if ".up" in name]
    assert len(lower) == len(upper) > 0
    assert all(p.abs().max() > 0 and p.grad is not None and not p.grad.any() for p in lower)
    assert all(p.grad is not None and p.grad.abs().max() > 1e-6 for p in upper)


def test_lora_merged_into_a_copy_is_lora() -> None:
    """M7: W + s W_u W_d."""
    backbone = tiny_backbone()
    batch = batch_of(backbone)
    model = perturb(build("lora", backbone), std=0.1)
    before = backbone.checksum()
    merged = Backbone(copy.deepcopy(backbone.model), backbone.tokenizer, "merged")
    changes = iter(model.stage[0])
    with torch.no_grad():
        for number in range(LAYERS):
            attention = merged.layer(number).attention.self
            for linear in (attention.query, attention.value):
                change = next(changes)
                linear.weight += 2.0 * change.up.weight @ change.down.weight
    plain = build("none", merged)
    plain.load({name: value for name, value in model.tensors().items() if name.startswith("head.")})
    torch.testing.assert_close(logits(plain, batch), logits(model, batch), rtol=1e-4, atol=1e-5)
    model.train()
    model.eval()
    assert backbone.checksum() == before


@pytest.mark.parametrize(
    ("preset", "values", "count"),
    [
        ("prefix", {"width": 5}, LAYERS * 2 * 5 * D),
        ("prefix", {"width": 5, "layers": "top:1"}, 2 * 5 * D),
        ("prefix_neutral", {"width": 5}, LAYERS * (2 * 5 * D + 1)),
        ("prefix_mlp", {"width": 5, "mlp": 7}, 5 * D + (D + 1) * 7 + (7 + 1) * 2 * LAYERS * D),
        ("multihead_parallel", {"width": 5}, LAYERS * 2 * 5 * D),
        ("lora", {"width": 5}, LAYERS * 4 * 5 * D),
        ("lora", {"width": 5, "place": ["ffn_intermediate"]}, LAYERS * 5 * (D + 48)),
        ("lora", {"width": 5, "learned_scale": True}, LAYERS * (4 * 5 * D + 2)),
        ("pfeiffer", {"width": 5, "bias": False}, LAYERS * 2 * 5 * D),
        ("pfeiffer", {"width": 5}, LAYERS * (2 * 5 * D + 5 + D)),
        ("parallel", {"width": 5, "layers": [1]}, 2 * 5 * D + 5 + D),
        ("houlsby", {"width": 5, "bias": False}, LAYERS * 2 * 2 * 5 * D),
        ("list", {"width": 5}, LAYERS * 2 * 2 * 5 * D),
        ("mam", {"width": 5}, LAYERS * (2 * 5 * D + 2 * 5 * D + 5 + D)),
        ("none", {}, 0),
    ],
)
def test_counts_follow_the_formulas(preset: str, values: dict[str, Any], count: int) -> None:
    """M9: 2 l D a layer for a prefix, 2 r D a place for a bottleneck, 4 r D a layer for LoRA on query and value."""
    assert stage_count(build(stages(preset, **values))) == count


@pytest.mark.parametrize(
    ("layers", "chosen", "depth"), [("all", [0, 1], 0), ("top:1", [1], 1), ("top:9", [0, 1], 0), ([1], [1], 1)]
)
@pytest.mark.parametrize("preset", ["prefix", "lora", "bitfit"])
def test_layers_are_chosen_by_number(preset: str, layers: Any, chosen: list[int], depth: int) -> None:
    """Left and right of a tuned layer nothing is trained, and all below the first one is one frozen function."""
    config, backbone = small(preset, layers=layers), tiny_backbone()
    assert isinstance(config[0], Unified | BitFit)
    assert config[0].chosen(LAYERS) == chosen
    assert first_tuned_layer(config, backbone) == depth
    model = build(config, backbone)
    assert stage_count(model) * LAYERS == stage_count(build(preset, backbone)) * len(chosen)
    batch = batch_of(backbone)
    with torch.no_grad():
        given = backbone.model(batch.ids, attention_mask=batch.attention, output_hidden_states=True).hidden_states
        if depth:
            torch.testing.assert_close(model._hidden(batch), given[depth], rtol=1e-5, atol=1e-5)


# BitFit, and what all stages leave alone


@pytest.mark.parametrize("family", [family for family in CONFIGS if family != "modernbert"])
@pytest.mark.parametrize("layers", ["all", "top:1"])
def test_bitfit_trains_the_biases_and_nothing_else(family: str, layers: str) -> None:
    """M14. DeBERTa's query and key biases stay: these projections also see relative positions."""
    backbone = tiny_backbone(family)
    with torch.no_grad():
        for name, parameter in backbone.model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    model = build(small("bitfit", layers=layers), backbone)
    numbers = range(LAYERS) if layers == "all" else range(1, LAYERS)
    named = [(name, p) for number in numbers for name, p in backbone.layer(number).named_parameters()]
    expected = [
        p for name, p in named if name.endswith("bias") and not name.endswith(("query_proj.bias", "key_proj.bias"))
    ]
    trained = {name: p for name, p in model.tunable().items() if name.startswith("stage.")}
    assert all(name.endswith(".bias") and p.dim() == 1 for name, p in trained.items())
    assert len(expected) > 0
    assert sorted(p.tolist() for p in trained.values()) == sorted(p.tolist() for p in expected)


def test_bitfit_is_the_backbone_with_other_biases() -> None:
    backbone = tiny_backbone()
    batch = batch_of(backbone)
    model = perturb(build("bitfit", backbone), std=0.2)
    changed = Backbone(copy.deepcopy(backbone.model), backbone.tokenizer, "changed")
    changes = iter(model.stage[0])
    with torch.no_grad():
        for number in range(LAYERS):
            for module in changed.layer(number).modules():
                if isinstance(module, nn.Linear | nn.LayerNorm):
                    module.bias.copy_(next(changes).bias)
    plain = build("none", changed)
    plain.load({name: value for name, value in model.tensors().items() if name.startswith("head.")})
    torch.testing.assert_close(logits(plain, batch), logits(model, batch), rtol=1e-5, atol=1e-5)
    assert (logits(build("none", backbone), batch) - logits(model, batch)).abs().max() > 1e-2


@pytest.mark.parametrize("preset", IN_LAYERS)
def test_training_moves_the_stage_and_never_the_backbone(preset: str) -> None:
    """M14, M15: teacher and student on one backbone, through every phase of a round."""
    backbone = tiny_backbone()
    before = backbone.checksum()
    teacher, student = build(preset, backbone, seed=1), build(preset, backbone, seed=2)
    encoded = Prompt(TASK, backbone.tokenizer, 32).encode(TEXTS)
    batch = encoded.batch(range(3))
    taught, start = logits(teacher, batch), student.tensors()
    phases = (("labelled", 2), ("warmup", 2), ("reweighted", 2), ("tail", 1))
    recipe = Recipe(phases, learning_rate=0.05, batch=2, labelled_batch=2, meta_batch=2)
    Trainer(student, recipe, Material(encoded, torch.tensor([0, 1, 2]), encoded, taught.softmax(-1))).run()
    assert backbone.checksum() == before
    assert torch.equal(logits(teacher, batch), taught)
    assert (logits(student, batch) - taught).abs().max() > 1e-3
    assert all(not torch.equal(value, start[name]) for name, value in student.tensors().items())


@pytest.mark.parametrize("preset", [name for name in IN_LAYERS if name != "none"])
def test_saved_tensors_come_back_exactly(preset: str) -> None:
    backbone = tiny_backbone()
    batch = batch_of(backbone)
    model, other = perturb(build(preset, backbone, seed=1)), build(preset, backbone, seed=2)
    assert not torch.equal(logits(model, batch), logits(other, batch))
    other.load(model.tensors())
    assert torch.equal(logits(model, batch), logits(other, batch))


@pytest.mark.parametrize(
    "names",
    [
        ["prefix", "lora"],
        ["lora", "list"],
        ["multihead_parallel", "prefix"],
        ["bitfit", "prefix"],
        ["lora", "bitfit"],
        ["bitfit", "scaled_parallel"],
        ["scaled_parallel", "bitfit"],
        ["scaled_parallel", "list"],
        ["mam", "list"],
        ["parallel", "pfeiffer"],
        ["houlsby", "bitfit"],
        ["bitfit", "list"],
    ],
    ids=" ".join,
)
def test_stages_combine(names: list[str]) -> None:
    """Every stage of a list trains what it trains alone, and the engines agree on the whole."""
    backbone = tiny_backbone()
    alone = sum(stage_count(build(small(name), backbone)) for name in names)
    model = build([stage for name in names for stage in small(name)], backbone)
    assert stage_count(model) == alone
    check_engines(perturb(model), Prompt(TASK, backbone.tokenizer, 48))


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("place", ["attention_output", "ffn_output"])
def test_two_changes_beside_a_block_are_one_of_both_widths(family: str, place: str) -> None:
    """Both read what the block reads, and neither what the other makes of it."""
    backbone = tiny_backbone(family)
    values = {"kind": "unified", "insertion": "parallel", "place": [place], "init_std": 0.2}
    two = perturb(build(stages([values | {"width": 3}, values | {"width": 2}]), backbone))
    one = build(stages([values | {"width": 5}]), backbone)
    tensors = two.tensors()
    for name, value in tensors.items():
        if name.startswith("stage.0."):
            tensors[name] = torch.cat(
                [value, tensors[name.replace("stage.0.", "stage.1.")]], 0 if ".down." in name else 1
            )
    one.load({name: value for name, value in tensors.items() if not name.startswith("stage.1.")})
    batch = Prompt(TASK, backbone.tokenizer, 48).encode([("w1 w2 good w3", None), ("w4", None)]).batch([0, 1])
    with torch.no_grad():
        assert close(logits(two, batch), logits(one, batch))


def test_the_heads_may_stand_beside_another_place() -> None:
    values = {"form": "relu", "place": ["attention_heads", "ffn_output"], "insertion": "parallel", "width": 4}
    assert stage_count(build(stages({"kind": "unified"} | values))) == LAYERS * 2 * 2 * 4 * D


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("places", [["ffn_output", "ffn_intermediate"], ["attention_output", "attention_query"]])
def test_a_block_and_a_map_within_it_may_be_changed_in_either_order(family: str, places: list[str]) -> None:
    backbone = tiny_backbone(family)
    counts = {
        stage_count(build(stages({"kind": "unified", "insertion": "parallel", "width": 4, "place": order}), backbone))
        for order in (places, places[::-1])
    }
    assert len(counts) == 1


# Config


def test_one_word_a_dict_and_a_list_stand_for_stages() -> None:
    assert stages("none") == (NoStage(),)
    assert stages("bitfit") == (BitFit(),)
    assert stages("list") == (Unified(init_std=2e-4),)
    assert stages({"kind": "lora", "width": 3}) == stages("lora", width=3)
    assert stages(["lora", {"kind": "bitfit", "layers": "top:1"}]) == (*stages("lora"), BitFit(layers="top:1"))
    assert stages({"width": 7}) == stages("list", width=7)


@pytest.mark.parametrize("wrong", ["houlsbi", "houlsby_", "Houlsby"])
def test_an_unknown_stage_suggests_the_nearest(wrong: str) -> None:
    with pytest.raises(ValueError, match=f"unknown stage '{wrong}'; did you mean 'houlsby'"):
        stages(wrong)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"composition": "gated"}, "gated is the softmax of a prefix"),
        ({"form": "relu", "place": ["attention_heads"]}, "attention_heads has no sequential insertion"),
        ({"form": "softmax", "insertion": "parallel"}, "belongs at place attention_heads alone"),
        (
            {"form": "softmax", "place": ["attention_heads", "ffn_output"], "insertion": "parallel"},
            "belongs at place attention_heads alone",
        ),
        ({"place": ["embeddings"], "insertion": "parallel"}, "embeddings has no parallel insertion"),
        ({"mlp": 8}, "mlp and neutral belong to form softmax"),
        (
            {"form": "softmax", "place": ["attention_heads"], "insertion": "parallel", "neutral": True},
            "neutral belongs to the gated composition",
        ),
        ({"scale": 2.0}, "belong to the scaled composition"),
        ({"learned_scale": True}, "belong to the scaled composition"),
        ({"place": []}, "at least 1 item"),
        ({"layers": "top:0"}, "layers"),
        ({"layers": [-1]}, "greater than or equal to 0"),
        ({"widht": 8}, "Extra inputs are not permitted"),
    ],
)
def test_values_that_make_no_sense_are_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        stages({"kind": "unified"} | values)


@pytest.mark.parametrize("preset", ["list", "lora", "scaled_parallel", "multihead_parallel"])
def test_a_bottleneck_above_the_hidden_size_is_refused(preset: str) -> None:
    assert stage_count(build(small(preset, width=D))) > 0
    with pytest.raises(InputError, match=rf"stage\.width is {D + 1}, above the hidden size {D} of backbone 'tiny-bert"):
        build(small(preset, width=D + 1))


@pytest.mark.parametrize("preset", ["prefix", "prefix_mlp", "prefix_neutral", "multihead_parallel", "mam"])
@pytest.mark.parametrize("family", [family for family in CONFIGS if family not in SHAPED_LIKE_BERT])
def test_attention_of_another_shape_takes_no_prefix(family: str, preset: str) -> None:
    with pytest.raises(InputError, match=f"'{family}' backbone takes no prefix.*use a bert, electra, roberta backbone"):
        build(preset, tiny_backbone(family))


@pytest.mark.parametrize(
    ("family", "place"),
    [
        ("deberta-v2", "attention_query"), ("deberta-v2", "attention_key"), ("modernbert", "attention_query"),
        ("modernbert", "attention_value"), ("modernbert", "ffn_intermediate"),
    ],
)  # fmt: skip
def test_a_place_that_a_family_lacks_is_named(family: str, place: str) -> None:
    with pytest.raises(InputError, match=f"a '{family}' backbone has no {place}"):
        build(small("lora", place=[place]), tiny_backbone(family))


@pytest.mark.parametrize("layers", [[2], [0, 5], []])
@pytest.mark.parametrize("preset", ["list", "prefix", "bitfit"])
def test_layers_that_are_not_there_are_refused(preset: str, layers: list[int]) -> None:
    with pytest.raises(InputError, match=r"do not fit a backbone with layers 0 to 1"):
        build(small(preset, layers=layers))


# Parity with peft


def test_lora_gives_the_hidden_states_of_peft() -> None:
    peft = pytest.importorskip("peft")
    backbone = tiny_backbone()
    batch = batch_of(backbone)
    model = perturb(build("lora", backbone, "linear"), std=0.2)
    config = peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=["query", "value"])
    theirs = peft.get_peft_model(copy.deepcopy(backbone.model.base_model), config).eval()
    changes = iter(model.stage[0])
    with torch.no_grad():
        for layer in theirs.base_model.model.encoder.layer:
            for linear in (layer.attention.self.query, layer.attention.self.value):
                change = next(changes)
                linear.lora_A["default"].weight.copy_(change.down.weight)
                linear.lora_B["default"].weight.copy_(change.up.weight)
        expected = theirs(input_ids=batch.ids, attention_mask=batch.attention).last_hidden_state
        plain = backbone.model.base_model(input_ids=batch.ids, attention_mask=batch.attention).last_hidden_state
        found = model._features(batch)
    real = batch.attention.bool()
    torch.testing.assert_close(found[real], expected[real], rtol=1e-5, atol=1e-5)
    assert (found[real] - plain[real]).abs().max() > 1e-2


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
