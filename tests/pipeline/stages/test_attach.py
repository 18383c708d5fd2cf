"""Stages put into a backbone: into which layers, and several at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from meta_step import TASK
from stage_models import (
    LAYERS,
    batch_of,
    build,
    check_engines,
    perturb,
    small,
    stage_count,
)
from tiny import tiny_backbone

from listflow.data.errors import InputError
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.model.classifier import first_tuned_layer
from listflow.pipeline.stages.config import BitFit, Unified


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


@pytest.mark.parametrize("layers", [[2], [0, 5], []])
@pytest.mark.parametrize("preset", ["list", "prefix", "bitfit"])
def test_layers_that_are_not_there_are_refused(preset: str, layers: list[int]) -> None:
    with pytest.raises(InputError, match=r"do not fit a backbone with layers 0 to 1"):
        build(small(preset, layers=layers))
