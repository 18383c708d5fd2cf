"""The embedded backbones: one encoder under two masked-LM updates, each known by its name."""

from __future__ import annotations

import pytest
import torch

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import absolute_backbone, load_backbone
from listflow.pipeline.backbone.masked_lm import fill_mask
from listflow.pipeline.backbone.pretrained import UPDATES, is_embedded, rank_of, update_of


@pytest.mark.parametrize("name", UPDATES)
def test_an_embedded_backbone_guesses_words_and_is_the_plain_encoder_beneath(name: str) -> None:
    backbone = load_backbone(name, "fp32", "cpu")
    [(_, guesses)] = fill_mask(backbone, ["paris is the [MASK] of france."])
    assert "capital" in [word for word, _ in guesses]
    other = load_backbone(next(each for each in UPDATES if each != name), "fp32", "cpu")
    assert backbone.checksum() != other.checksum()
    mine, its = backbone.untouched.state_dict(), other.untouched.state_dict()
    assert all(torch.equal(mine[key], its[key]) for key in mine)


def test_ranks_and_names() -> None:
    assert [rank_of(update_of(name)) for name in ("minilm", "minilm-2")] == [16, 64]
    assert all(is_embedded(name) and absolute_backbone(name) == name for name in UPDATES)
    assert not is_embedded("minilm-3")
    with pytest.raises(InputError, match="neither 'minilm' nor a folder nor a hub id"):
        load_backbone("minilm-3")
