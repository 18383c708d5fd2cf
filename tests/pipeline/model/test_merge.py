"""What is merged is the same function, leaves the backbone alone, and is only what merging knows."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from merged_models import LEARNED, TASK, VERBALIZER, backbone_of, of
from pydantic import TypeAdapter
from stage_models import perturb
from tiny import CONFIGS

from listflow.data.errors import InputError
from listflow.pipeline.backbone.families import FAMILIES
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.config import AnyHead, VerbalizerHead
from listflow.pipeline.model.merge import check_mergeable, merge, resolved
from listflow.pipeline.model.verbalizer import label_word_ids
from listflow.pipeline.stages.bottleneck import Bottleneck, Parallel, Sequential
from listflow.pipeline.stages.config import BitFit
from listflow.pipeline.stages.presets import stages

UNSHARED = [family for family in CONFIGS if not FAMILIES[family].shares_layers]


@pytest.mark.parametrize("family", [*UNSHARED, "deberta-v3"])
def test_the_backbone_and_its_word_embeddings_stay(family: str) -> None:
    backbone = backbone_of(family)
    before, words = backbone.checksum(), label_word_ids(TASK, backbone.tokenizer)
    model = perturb(Classifier(backbone, of("list"), TypeAdapter(AnyHead).validate_python(VERBALIZER), words))
    merged, own = merge(model, backbone, words), [word for (word,) in words]
    assert backbone.checksum() == before
    assert backbone.model.config.tie_word_embeddings
    assert torch.equal(merged.word_rows, backbone.word_rows)
    decoder = merged.model.get_output_embeddings()
    others = [i for i in range(len(backbone.word_rows)) if i not in own]
    assert torch.equal(decoder.weight[others], backbone.word_rows[others])
    assert not torch.equal(decoder.weight[own], backbone.word_rows[own])
    mine = {p.data_ptr() for p in merged.model.parameters()}
    assert not mine & {p.data_ptr() for p in backbone.model.parameters()}


@pytest.mark.parametrize("wrapper", [Sequential, Parallel])
def test_the_algebra_in_float64(wrapper: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    inner = torch.nn.Linear(5, 7)
    config = stages({"kind": "unified", "width": 3, "bias": True, **LEARNED})[0]
    change = Bottleneck(7 if wrapper is Sequential else 5, 7, config, generator)
    for parameter in change.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    module, x = wrapper(inner, change).double(), torch.randn(4, 5, generator=generator).double()
    found = resolved(module)
    torch.testing.assert_close(x @ found.weight.T + found.bias, module(x), rtol=1e-12, atol=1e-12)


def test_a_stage_that_merging_does_not_know_is_refused() -> None:
    class Scaling(BitFit):
        kind: Literal["scaling"] = "scaling"  # type: ignore[assignment]

    with pytest.raises(InputError, match="stage scaling is no part of the weights"):
        check_mergeable([Scaling()], VerbalizerHead(), "run")


def test_layers_that_share_their_weights_take_a_head_and_no_stage() -> None:
    backbone = backbone_of("albert")
    words, head = label_word_ids(TASK, backbone.tokenizer), TypeAdapter(AnyHead).validate_python(VERBALIZER)
    assert merge(Classifier(backbone, of("none"), head, words), backbone, words).n_layers == 2
    with pytest.raises(
        InputError, match=r"'albert' backbone runs the same weights in every layer.*`listflow predict`\.$"
    ):
        merge(Classifier(backbone, of("list"), head, words), backbone, words)
