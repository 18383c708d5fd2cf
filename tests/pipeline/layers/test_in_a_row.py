"""Layers on tokens in a row give the numbers, the gradients and the meta weights of layers on padded rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from meta_step import TASK, step_of
from tiny import CONFIGS, tiny_backbone
from torch import Tensor

from listflow.pipeline.backbone.layers import SHAPED_LIKE_BERT, upper
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.layers.in_a_row import InARow
from listflow.pipeline.method import tape
from listflow.pipeline.method.reweight import Reweighted, Step, fused
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.config import VerbalizerHead, YTuningHead
from listflow.pipeline.model.verbalizer import label_word_ids
from listflow.pipeline.stages.presets import pseudo_tokens, stages

STAGES: dict[str, Any] = {
    "list": {"kind": "list", "width": 4, "init_std": 0.1},
    "top": {"kind": "list", "width": 4, "init_std": 0.1, "layers": "top:1"},
    "houlsby": {"kind": "houlsby", "width": 4},
    "learned": {"kind": "scaled_parallel", "width": 4, "learned_scale": True},
    "lora": "lora",
    "bitfit": "bitfit",
    "prefix": "prefix",
    "prefix_mlp": {"kind": "prefix_mlp", "mlp": 8},
    "multihead_parallel": {"kind": "multihead_parallel", "width": 4},
    "mam": {"kind": "mam", "width": 4},
    "ptuning": "ptuning",
    "embeddings": {"kind": "list", "width": 4, "place": ["embeddings", "ffn_output"]},
    "prefix_neutral": "prefix_neutral",
}


def trained(
    stage: Any, head: Any = None, family: str = "bert", dtype: torch.dtype = torch.float32
) -> tuple[Classifier, Step]:
    """A classifier whose stage does something, and a step of texts of unlike lengths."""
    backbone, chosen = tiny_backbone(family, 0), stages(stage)
    backbone.model.to(dtype)
    words = label_word_ids(TASK, backbone.tokenizer)
    model = Classifier(backbone, chosen, head or VerbalizerHead(), words, 3)
    generator = torch.Generator().manual_seed(7)
    for parameter in model.tunable().values():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model, step_of(Prompt(TASK, backbone.tokenizer, 48, pseudo_tokens(chosen)), seed=6)


def padded(model: Classifier) -> Classifier:
    """The same, by the padded way through its layers."""
    model.row = None
    return model


def outcome(model: Classifier, step: Step) -> tuple[Reweighted, Tensor]:
    parameters = list(model.tunable().values())
    done = fused(model, parameters, replace(step, pads=model.row is None))
    return done, torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


@pytest.mark.parametrize("family", CONFIGS)
def test_only_layers_of_berts_own_shape_run_in_a_row(family: str) -> None:
    model, _ = trained(STAGES["list"], family=family)
    assert (model.row is not None) == (family in SHAPED_LIKE_BERT - {"mpnet", "albert"})
    assert InARow.of(None, tiny_backbone(family)) is None


def test_a_gpu_keeps_rows_of_one_length(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone()
    monkeypatch.setattr(type(backbone), "device", torch.device("meta"))
    assert InARow.of(upper(backbone, 0), backbone) is None


@pytest.mark.parametrize("head", [VerbalizerHead(), YTuningHead(width=16, heads=2)], ids=["mask", "every token"])
@pytest.mark.parametrize("family", sorted(SHAPED_LIKE_BERT - {"mpnet", "albert"}))
def test_logits_are_those_of_padded_rows(family: str, head: Any) -> None:
    model, step = trained(STAGES["list"], head, family)
    whole = step.unlabelled.join(step.labelled)
    for batch in (whole, whole.cut(0.3, torch.Generator().manual_seed(0))):
        found = model(batch)
        row, model.row = model.row, None
        torch.testing.assert_close(found, model(batch), rtol=1e-4, atol=1e-5)
        model.row = row


@pytest.mark.parametrize("stage", STAGES)
def test_one_pass_gives_the_meta_weights_and_gradients_of_padded_passes(stage: str) -> None:
    (model, step), (other, _) = trained(STAGES[stage]), trained(STAGES[stage])
    assert len(step.unlabelled.company(step.labelled)[1])  # of padded rows the longest text has a pass of its own
    (ours, gradient), (theirs, expected) = outcome(model, step), outcome(padded(other), step)
    assert not theirs.uniform
    torch.testing.assert_close(ours.scores, theirs.scores, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours.losses, theirs.losses, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_texts_of_many_lengths_attend_in_groups_unless_a_stage_adds_to_heads() -> None:
    rows = {stage: trained(STAGES[stage])[0].row for stage in ("list", "bitfit", "prefix", "mam")}
    assert [row is not None and row.grouped for row in rows.values()] == [True, True, False, False]


def test_bfloat16_is_as_near_to_fp32_as_padded() -> None:
    exact = outcome(*trained(STAGES["list"]))[0].scores
    errors = []
    for way in (lambda model: model, padded):
        model, step = trained(STAGES["list"], dtype=torch.bfloat16)
        assert model.row is not None
        assert model.row.multiple == 32
        done, gradient = outcome(way(model), step)
        assert gradient.dtype == torch.float32
        errors.append(torch.linalg.norm(done.scores - exact))
    assert errors[0] <= 1.2 * errors[1] + 1e-3 * torch.linalg.norm(exact)


def test_a_step_that_does_not_pad_is_one_pass() -> None:
    _, step = trained(STAGES["list"])
    every = torch.arange(len(step.labelled))
    along, apart = replace(step, pads=False).passes()
    assert torch.equal(along, every)
    assert not len(apart)
    assert len(step.passes()[1])


def test_parts_of_a_row_are_whole_steps_and_only_their_own_tokens_count() -> None:
    lengths = torch.tensor([5, 40, 9])
    with tape.recording() as found:
        tape.in_a_row(lengths, 32)
    row = found.row_of(torch.zeros(1, 64, 2))
    assert row is not None
    assert found.row_of(torch.zeros(3, 2)) is None
    x = torch.arange(64.0).reshape(1, 64, 1)
    for size, before, behind in ((1, 32, 64), (2, 64, 32), (3, 64, 32)):
        assert len(row.first(x, size)) == before
        assert len(row.last(x, size)) == behind
        end = int(lengths[:size].sum())
        weights = row.spread(torch.arange(1.0, size + 1))
        assert torch.equal(weights[:end], torch.arange(1.0, size + 1).repeat_interleave(lengths[:size]))
        assert not weights[end:].any()
        alone = row.alone(row.last(x, size), size)
        assert alone.sum() == x[0, end:].sum()
        sums = row.sums(row.first(x, size)[:, 0], size)
        assert sums.tolist() == [part.sum().item() for part in x[0, :end, 0].split(lengths[:size].tolist())]


def test_one_text_alone() -> None:
    model, step = trained(STAGES["list"])
    alone = step.labelled.take(torch.tensor([1]))
    torch.testing.assert_close(model(alone), model(step.labelled)[1:2], rtol=1e-4, atol=1e-5)
    single = replace(step, unlabelled=alone, soft=step.soft[:1], labelled=alone, gold=step.gold[:1])
    (ours, gradient), (theirs, expected) = outcome(model, single), outcome(padded(trained(STAGES["list"])[0]), single)
    torch.testing.assert_close(ours.scores, theirs.scores, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
