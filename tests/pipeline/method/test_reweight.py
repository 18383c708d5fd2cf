"""Every engine gives the weights and gradients of the unrolled reference, on every backbone family."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from meta_step import TASK, step_of
from tiny import CONFIGS, tiny_backbone

from listflow.pipeline.backbone.batch import A_PASS
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.method.reweight import ENGINES, fused, kl, normalise
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.config import VerbalizerHead
from listflow.pipeline.model.verbalizer import label_word_ids
from listflow.pipeline.stages.presets import pseudo_tokens, stages

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def classifier(family: str, seed: int = 0) -> tuple[Classifier, Prompt]:
    backbone = tiny_backbone(family, seed)
    words = label_word_ids(TASK, backbone.tokenizer)
    model = Classifier(backbone, stages("list", width=4, init_std=0.1), VerbalizerHead(), words, seed)
    return model, Prompt(TASK, backbone.tokenizer, 48)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("engine", ["fused", "jvp"])
def test_engine_equals_the_unrolled_step(family: str, engine: str) -> None:
    model, prompt = classifier(family)
    parameters = list(model.tunable().values())
    step = step_of(prompt, seed=5)
    expected = ENGINES["higher"](model, parameters, step)
    gradients = [p.grad.clone() for p in parameters]
    found = ENGINES[engine](model, parameters, step)
    assert not expected.uniform
    assert torch.linalg.norm(found.scores - expected.scores) <= 1e-5 * torch.linalg.norm(expected.scores)
    assert torch.linalg.norm(found.weights - expected.weights) <= 1e-5 * torch.linalg.norm(expected.weights)
    ours, theirs = torch.cat([p.grad.flatten() for p in parameters]), torch.cat([g.flatten() for g in gradients])
    assert torch.linalg.norm(ours - theirs) <= 1e-5 * torch.linalg.norm(theirs)


@pytest.mark.parametrize("stage", ["list", "mam", "bitfit", "ptuning", "prefix"])
def test_a_pass_of_its_own_for_long_labelled_texts_changes_nothing(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    backbone = tiny_backbone("bert", 0)
    words = label_word_ids(TASK, backbone.tokenizer)
    chosen = stages(stage, width=4) if stage in {"list", "mam"} else stages(stage)
    model = Classifier(backbone, chosen, VerbalizerHead(), words, 3)
    step = step_of(Prompt(TASK, backbone.tokenizer, 48, pseudo_tokens(chosen)), seed=6)
    for parameter in model.tunable().values():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
    found = []
    for cost in (0, 10_000):
        monkeypatch.setitem(A_PASS, True, cost)
        assert len(step.unlabelled.company(step.labelled)[1]) == (1 if cost == 0 else 0)
        done = fused(model, list(model.tunable().values()), step)
        found.append((done.scores, torch.cat([p.grad.flatten() for p in model.tunable().values()])))
    for apart, together in zip(*found, strict=True):
        torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-6)


def test_the_reference_of_the_benchmark_gives_the_weights_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would compare the seconds of two different things."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    public = importlib.import_module("reference")
    model, prompt = classifier("bert")
    step = step_of(prompt, seed=5)
    expected = fused(model, list(model.tunable().values()), step)
    wide = [public.padded(batch, 48) for batch in (step.unlabelled, step.labelled)]
    assert wide[0].ids.shape[1] == 48 > step.unlabelled.ids.shape[1]
    backbone = tiny_backbone("bert", 0)
    words, chosen = label_word_ids(TASK, backbone.tokenizer), stages("list", width=4, init_std=0.1)
    whole = public.PublicModel(classifier("bert")[0], chosen, backbone, words)
    torch.testing.assert_close(whole(wide[0]), model(step.unlabelled), rtol=1e-4, atol=1e-5)
    # Its constant is added to scores that are scaled by its rate.
    found = public.meta_weights(whole, wide[0], step.soft, wide[1], step.gold, eps=public.RATE * step.eps)
    assert not expected.uniform
    torch.testing.assert_close(found, expected.weights, rtol=1e-4, atol=1e-6)


def test_scores_are_dots_of_per_example_gradients() -> None:
    """The closed form itself, one example at a time, by plain autograd."""
    model, prompt = classifier("bert")
    parameters = list(model.tunable().values())
    step = step_of(prompt, seed=1, unlabelled=4)
    towards = torch.autograd.grad(F.cross_entropy(model(step.labelled), step.gold), parameters)
    losses = kl(step.soft, model(step.unlabelled))
    dots = []
    for i in range(4):
        gradient = torch.autograd.grad(losses[i], parameters, retain_graph=True)
        dots.append(sum((a * b).sum() for a, b in zip(gradient, towards, strict=True)))
    torch.testing.assert_close(fused(model, parameters, step).scores, torch.stack(dots), rtol=1e-4, atol=1e-6)


def test_gradient_is_that_of_the_weighted_loss() -> None:
    model, prompt = classifier("bert")
    parameters = list(model.tunable().values())
    step = step_of(prompt, seed=2)
    found = fused(model, parameters, step)
    expected = torch.autograd.grad((found.weights * kl(step.soft, model(step.unlabelled))).sum(), parameters)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_weights_are_nonnegative_and_sum_to_one() -> None:
    weights, uniform = normalise(torch.tensor([2.0, -1.0, 6.0, 0.0]), 0.0)
    assert not uniform
    torch.testing.assert_close(weights, torch.tensor([0.25, 0.0, 0.75, 0.0]))


def test_the_constant_shrinks_the_weights_as_in_the_public_script() -> None:
    """Rate 5e-6 on the scores and 1e-6 in the sum are the same as 0.2 on raw scores."""
    raw = torch.tensor([0.3, 0.1, -0.2])
    scaled = (5e-6 * raw).clamp_min(0)
    torch.testing.assert_close(normalise(raw, 0.2)[0], scaled / (scaled.sum() + 1e-6))


def test_no_aligned_example_falls_back_to_uniform_weights() -> None:
    weights, uniform = normalise(torch.tensor([-1.0, 0.0, -3.0]), 1e-12)
    assert uniform
    torch.testing.assert_close(weights, torch.full((3,), 1 / 3))


def test_fused_follows_the_students_own_dropout() -> None:
    """In training mode the scores are those of the masked forward that also gives the gradient."""
    model, prompt = classifier("bert")
    parameters = list(model.tunable().values())
    step = step_of(prompt, seed=3)
    model.train()
    torch.manual_seed(0)
    first = fused(model, parameters, step).scores
    torch.manual_seed(1)
    assert not torch.equal(first, fused(model, parameters, step).scores)


def test_a_bf16_backbone_still_gives_fp32_gradients() -> None:
    backbone = tiny_backbone()
    backbone.model.to(torch.bfloat16)
    words = label_word_ids(TASK, backbone.tokenizer)
    model = Classifier(backbone, stages("list", width=4), VerbalizerHead(), words)
    found = fused(model, list(model.tunable().values()), step_of(Prompt(TASK, backbone.tokenizer, 48), seed=4))
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.tunable().values())
    assert torch.isfinite(found.scores).all()
