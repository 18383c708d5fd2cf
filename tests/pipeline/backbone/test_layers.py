"""The encoder in halves is the encoder."""

from __future__ import annotations

import pytest
import torch
from tiny import CONFIGS, tiny_backbone
from torch import Tensor, nn

from listflow.pipeline.backbone import layers
from listflow.pipeline.backbone.families import FAMILIES
from listflow.pipeline.backbone.layers import lower, upper
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.config import VerbalizerHead
from listflow.pipeline.stages.presets import stages


def texts() -> tuple[Tensor, Tensor]:
    """(ids, attention), three texts, one padded."""
    ids = torch.randint(5, 40, (3, 12), generator=torch.Generator().manual_seed(0))
    attention = torch.ones_like(ids)
    attention[1, 8:] = 0
    return ids, attention


def check_same(family: str, found: Tensor, own: Tensor) -> None:
    """To the bit where the layers are the family's own modules, and within 1e-5 where they are written anew."""
    tolerance = 1e-5 if FAMILIES[family].own else 0
    torch.testing.assert_close(found, own, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_both_halves_are_the_whole_encoder(family: str) -> None:
    backbone, (ids, attention) = tiny_backbone(family), texts()
    whole = backbone.view()(input_ids=ids, attention_mask=attention).last_hidden_state
    hidden = lower(backbone, 1)(input_ids=ids, attention_mask=attention).last_hidden_state
    assert not torch.allclose(hidden, whole)
    above = upper(backbone, 1)(inputs_embeds=hidden, attention_mask=attention).last_hidden_state
    check_same(family, above[attention.bool()], whole[attention.bool()])


@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_all_layers_below_are_the_whole_encoder(family: str) -> None:
    backbone, (ids, attention) = tiny_backbone(family), texts()
    whole = backbone.view()(input_ids=ids, attention_mask=attention).last_hidden_state
    found = lower(backbone, 2)(input_ids=ids, attention_mask=attention).last_hidden_state
    check_same(family, found[attention.bool()], whole[attention.bool()])


def test_large_deberta_is_not_divided() -> None:
    backbone = tiny_backbone("deberta-v2")
    backbone.model.config.conv_kernel_size = 3
    try:
        assert not layers.divisible(backbone)
        assert (
            Classifier(backbone, stages("list", layers="top:1", width=4), VerbalizerHead(), [(5,), (6,)]).below is None
        )
    finally:
        del backbone.model.config.conv_kernel_size


def test_layers_below_never_drop_and_take_no_gradient() -> None:
    model = Classifier(tiny_backbone(), stages("list", layers="top:1", width=4), VerbalizerHead(), [(5,), (6,)]).train()
    assert model.below is not None
    assert not any(module.training for module in model.below.modules())
    assert any(module.training for module in model.encoder.modules() if isinstance(module, nn.Dropout))
