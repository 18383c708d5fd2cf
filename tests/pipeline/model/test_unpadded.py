"""Frozen layers without padding give the numbers of the layers as they are, for every family that they know."""

from __future__ import annotations

import pytest
import torch
from meta_step import TASK
from tiny import CONFIGS, tiny_backbone

from listflow.pipeline.backbone.batch import Batch
from listflow.pipeline.backbone.layers import SHAPED_LIKE_BERT, lower
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.model.arithmetic import packs, quantises
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.config import VerbalizerHead
from listflow.pipeline.model.unpadded import Unpadded, reading_by, unpadded
from listflow.pipeline.stages.presets import stages

LENGTHS = torch.tensor([3, 19, 7, 1, 19])


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 40, (len(LENGTHS), 19), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": (torch.arange(19) < LENGTHS[:, None]).long()}


@torch.no_grad()
@pytest.mark.parametrize("family", CONFIGS)
def test_real_tokens_have_the_same_states_in_every_layer(family: str) -> None:
    backbone, given = tiny_backbone(family), batch()
    own = lower(backbone, backbone.n_layers)
    ours = unpadded(own, backbone, "unpadded")
    is_known = family in SHAPED_LIKE_BERT - {"mpnet", "albert"}
    assert isinstance(ours, Unpadded) == is_known
    assert isinstance(unpadded(backbone.untouched, backbone, "unpadded"), Unpadded) == is_known
    whole, found = (encoder(**given, output_hidden_states=True) for encoder in (own, ours))
    real = given["attention_mask"].bool()
    torch.testing.assert_close(found.last_hidden_state[real], whole.last_hidden_state[real], rtol=1e-4, atol=1e-5)
    assert torch.equal(found.last_hidden_state, ours(**given).last_hidden_state)
    if isinstance(ours, Unpadded):
        assert not found.last_hidden_state[~real].any()
        for layer, theirs in zip(found.hidden_states, whole.hidden_states, strict=True):
            torch.testing.assert_close(layer[real], theirs[real], rtol=1e-4, atol=1e-5)


def test_the_names_of_parameters_stay_and_padded_is_the_encoder_itself() -> None:
    backbone = tiny_backbone()
    own = lower(backbone, 1)
    assert unpadded(own, backbone, "padded") is own
    assert [id(p) for p in unpadded(own, backbone, "unpadded").parameters()] == [id(p) for p in own.parameters()]


@torch.no_grad()
@pytest.mark.skipif(not packs(), reason="this processor multiplies no packed bfloat16")
def test_packed_weights_are_as_near_to_fp32_as_bfloat16_is() -> None:
    backbone, given = tiny_backbone(), batch()
    real = given["attention_mask"].bool()
    exact = lower(backbone, 2)(**given).last_hidden_state[real]
    backbone.to(torch.bfloat16)
    plain = lower(backbone, 2)(**given).last_hidden_state[real].float()
    packed = unpadded(lower(backbone, 2), backbone, "packed")
    found = packed(**given).last_hidden_state[real].float()
    assert (found - exact).abs().mean() <= 1.2 * (plain - exact).abs().mean()
    made = len(backbone.maps)
    unpadded(lower(backbone, 2), backbone, "packed")
    assert len(backbone.maps) == made > 0  # a second classifier shares the copies


@torch.no_grad()
@pytest.mark.skipif(not quantises(), reason="this processor multiplies no 8-bit numbers")
def test_eight_bits_are_near() -> None:
    backbone, given = tiny_backbone(), batch()
    real = given["attention_mask"].bool()
    before = torch.backends.quantized.engine
    exact = lower(backbone, 2)(**given).last_hidden_state[real]
    found = unpadded(lower(backbone, 2), backbone, "int8")(**given).last_hidden_state[real]
    assert 0 < (found - exact).abs().mean() < 0.05 * exact.abs().mean()
    assert torch.backends.quantized.engine == before


@torch.no_grad()
def test_a_padded_model_pads_its_trained_layers_too() -> None:
    backbone, given = tiny_backbone(), batch()
    padded = Batch(given["input_ids"], given["attention_mask"], torch.zeros(len(LENGTHS), dtype=torch.int64))
    models = [Classifier(backbone, stages("list", width=4), VerbalizerHead(), [(5,), (6,)]) for _ in range(2)]
    prompt = Prompt(TASK, backbone.tokenizer, 48)
    for model, way in zip(models, ("padded", "unpadded"), strict=True):
        assert reading_by(way, model, prompt, backbone) is prompt
    assert models[0].row is None
    assert models[1].row is not None
    torch.testing.assert_close(models[0](padded), models[1](padded), rtol=1e-4, atol=1e-5)
