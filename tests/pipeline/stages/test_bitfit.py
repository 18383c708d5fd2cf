"""BitFit: a backbone with biases of its own, and nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from stage_models import (
    LAYERS,
    batch_of,
    build,
    logits,
    perturb,
    small,
)
from tiny import CONFIGS, tiny_backbone
from torch import nn

from listflow.pipeline.backbone.backbone import Backbone


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
