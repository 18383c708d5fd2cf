"""Classifiers on a tiny backbone for the tests of stages: built, disturbed, and held against the unrolled step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from meta_step import TASK, step_of
from pydantic import TypeAdapter
from tiny import tiny_backbone
from torch import Tensor

from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Batch
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.method.reweight import ENGINES
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.config import AnyHead
from listflow.pipeline.model.verbalizer import label_word_ids
from listflow.pipeline.stages.config import AnyStage, Unified
from listflow.pipeline.stages.presets import STAGE_PRESETS, lives_in_layers, stages

TEXTS = [("w1 w2 good", None), ("w3 w4 w5 w6 poor w7 w8 w9 w10", None), ("w9", None)]
HEADS: dict[str, dict[str, Any]] = {
    "verbalizer": {"kind": "verbalizer"},
    "linear": {"kind": "linear"},
    "ytuning": {"kind": "ytuning", "width": 16},
}
SHAPED_LIKE_BERT = ["albert", "bert", "camembert", "electra", "ernie", "mpnet", "roberta", "xlm-roberta"]
D, LAYERS = 32, 2
# Stages of the input, whose prompts hold tokens of their own, are tested in stages/test_ptuning.py.
IN_LAYERS = [name for name in STAGE_PRESETS if name == "none" or lives_in_layers(name)]


def small(name: str, **values: Any) -> tuple[AnyStage, ...]:
    """A preset of width 4, where it has one."""
    has_width = all(isinstance(part, Unified) for part in stages(name))
    return stages(name, **({"width": 4} if has_width else {}) | values)


def build(
    given: str | Sequence[AnyStage], backbone: Backbone | None = None, head: str = "verbalizer", seed: int = 0
) -> Classifier:
    backbone = backbone or tiny_backbone()
    config: AnyHead = TypeAdapter(AnyHead).validate_python(HEADS[head])
    chosen = small(given) if isinstance(given, str) else given
    return Classifier(backbone, chosen, config, label_word_ids(TASK, backbone.tokenizer), seed)


def batch_of(backbone: Backbone) -> Batch:
    """Texts of unlike lengths: the longest row has no padding worth speaking of, the shortest is mostly padding."""
    return Prompt(TASK, backbone.tokenizer, 32).encode(TEXTS).batch(range(len(TEXTS)))


@torch.no_grad()
def perturb(model: Classifier, std: float = 0.05, seed: int = 3) -> Classifier:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.tunable().values():
        parameter += std * torch.randn(parameter.shape, generator=generator)
    return model


@torch.no_grad()
def logits(model: Classifier, batch: Batch) -> Tensor:
    found: Tensor = model(batch)
    return found


def stage_count(model: Classifier) -> int:
    return sum(p.numel() for name, p in model.tunable().items() if name.startswith("stage."))


def close(found: Tensor, expected: Tensor, relative: float = 1e-5) -> bool:
    return bool(torch.linalg.norm(found - expected) <= relative * torch.linalg.norm(expected))


def check_engines(model: Classifier, prompt: Prompt) -> None:
    """``fused`` and ``jvp`` give the scores and gradients of ``higher``."""
    parameters, step = list(model.tunable().values()), step_of(prompt, seed=5, unlabelled=5)

    def run(engine: str) -> tuple[Tensor, Tensor]:
        for parameter in parameters:
            parameter.grad = None
        scores = ENGINES[engine](model, parameters, step).scores
        assert all(p.grad is not None for p in parameters), engine
        return scores, torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])

    expected_scores, expected_gradient = run("higher")
    assert expected_scores.norm() > 0
    assert expected_gradient.norm() > 0
    for engine in ("fused", "jvp"):
        scores, gradient = run(engine)
        assert close(scores, expected_scores), engine
        assert close(gradient, expected_gradient), engine
