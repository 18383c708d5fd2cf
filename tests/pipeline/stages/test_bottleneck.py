"""Bottlenecks: what they read, where their scale acts, how they start, and low-rank ones merged and in peft."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from stage_models import (
    LAYERS,
    D,
    batch_of,
    build,
    logits,
    perturb,
    small,
)
from tiny import tiny_backbone
from torch import Tensor

from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.stages.presets import stages


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
