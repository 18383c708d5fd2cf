"""A trained model on disk: its weights, what is known of it, and the figures of its training."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from listflow.pipeline.backbone.prompt import Encoded
from listflow.pipeline.infer import logits_of
from listflow.pipeline.method.gate import folds
from listflow.pipeline.method.metrics import measure, weight_stats
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.recipes import teacher_recipe
from listflow.pipeline.run.run import Progress, Run, counter
from listflow.pipeline.seeds import generator_for
from listflow.pipeline.stepping import forget_steps
from listflow.pipeline.storage.checkpoint import new_folder, save_tensors, verified
from listflow.pipeline.storage.pseudo_labels import save_meta_weights
from listflow.pipeline.training.trainer import Material, State, Trainer

Facts = dict[str, Any]
FOLDS = 3


def keep_model(
    run: Run,
    number: int,
    model: Classifier,
    facts: Facts,
    unfitted: Tensor | None,
    began: float,
    weights: list[tuple[np.ndarray, np.ndarray]] | None = None,
) -> Facts:
    """Weights, evidence and facts of a trained model, written as its folder."""
    known = {"sample": logits_on(run, number, "judge", model, run.corpus.take(run.sample()))}
    if unfitted is not None:
        known["labelled"] = unfitted
    metrics = None
    if run.test is not None and run.test_gold is not None:
        rows = run.test_sample(number)
        known["test"] = logits_on(run, number, "test", model, run.test if rows is None else run.test.take(rows))
        metrics = metrics_of(known["test"], run.test_gold if rows is None else run.test_gold[rows])
    facts = {**facts, "round": number, "seed": run.config.seed, "test": metrics}
    with new_folder(run.model_folder(number), {**facts, "seconds": time.monotonic() - began}) as aside:
        save_tensors(aside / "weights.safetensors", model.tensors())
        save_tensors(aside / "evidence.safetensors", known)
        if weights is not None:
            save_meta_weights(aside / "meta_weights.parquet", weights)
    forget_steps(run, number)
    return verified(run.model_folder(number)) or {}


def weight_facts(run: Run, state: State) -> Facts:
    """How the meta weights of a training were spread."""
    stats = weight_stats([weights for _, weights in state.weighed])
    return {
        "engine": run.config.reweight.engine,
        "zero_share": stats.zero_share if stats else None,
        "effective_sample_size": stats.effective_sample_size if stats else None,
        "uniform_steps": state.uniform_steps,
    }


def metrics_of(logits: Tensor, gold: Tensor) -> Facts:
    """Accuracy, macro F1 and calibration error of (N, C) logits, each 0 to 1."""
    found = measure(logits.softmax(-1).numpy(), gold.numpy())
    return {"accuracy": found.accuracy, "macro_f1": found.macro_f1, "ece": found.ece}


def logits_on(run: Run, number: int, phase: str, model: Classifier, encoded: Encoded) -> Tensor:
    """(N, C) logits, with progress told as ``phase`` of round ``number``."""
    return logits_of(model, encoded, counter(run.notify, number, phase, len(encoded)))


def cross_validated(run: Run, offset: Tensor | None) -> Tensor:
    """(K, C) logits of labelled rows under teachers that were trained without them."""
    logits = torch.zeros(len(run.gold), len(run.labels))
    for held in folds(len(run.gold), FOLDS, generator_for(run.config.seed, "folds")):
        kept = np.setdiff1d(np.arange(len(run.gold)), held)
        model = run.new_classifier(0, offset)
        recipe = teacher_recipe(run, len(kept), "folds")
        trainer = Trainer(model, recipe, Material(run.labelled.take(kept), run.gold[kept], run.corpus))
        trainer.run(lambda tick: run.notify(Progress(0, "folds", tick.step, tick.steps, tick.loss)))
        logits[held] = logits_of(model, run.labelled.take(held))
    return logits
