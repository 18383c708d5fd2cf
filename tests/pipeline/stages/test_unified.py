"""The unified family away from its presets, and places that a backbone has or lacks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from meta_step import TASK
from stage_models import (
    LAYERS,
    D,
    build,
    check_engines,
    close,
    logits,
    perturb,
    small,
    stage_count,
)
from tiny import CONFIGS, tiny_backbone

from listflow.data.errors import InputError
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.stages.presets import stages


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


@pytest.mark.parametrize("preset", ["list", "lora", "scaled_parallel", "multihead_parallel"])
def test_a_bottleneck_above_the_hidden_size_is_refused(preset: str) -> None:
    assert stage_count(build(small(preset, width=D))) > 0
    with pytest.raises(InputError, match=rf"stage\.width is {D + 1}, above the hidden size {D} of backbone 'tiny-bert"):
        build(small(preset, width=D + 1))


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
