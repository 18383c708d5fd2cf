"""A run's models: how each is trained, a training that survives a kill, and what is kept of it.

A recipe follows from the configuration and the round. Step checkpoints make a training resumable; a finished model is a
folder with its weights, the logits that are known of it (evidence), and the figures of its training.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from listflow.data.errors import InputError
from listflow.pipeline.backbone.batch import Encoded
from listflow.pipeline.method.gate import folds
from listflow.pipeline.method.metrics import measure, weight_stats
from listflow.pipeline.method.sampling import generator_for
from listflow.pipeline.model.classifier import Classifier, logits_of
from listflow.pipeline.run.run import Progress, Run, counter
from listflow.pipeline.stages.config import PTuning
from listflow.pipeline.stages.presets import pseudo_tokens
from listflow.pipeline.storage.checkpoint import (
    load_checked,
    new_folder,
    save_checked,
    save_tensors,
    undisturbed,
    verified,
)
from listflow.pipeline.storage.pseudo_labels import save_meta_weights
from listflow.pipeline.storage.run_folder import EVIDENCE, META_WEIGHTS, WEIGHTS
from listflow.pipeline.training.auxiliary import Auxiliary
from listflow.pipeline.training.trainer import Material, Recipe, State, Tick, Trainer

Facts = dict[str, Any]
FOLDS = 3


def teacher_recipe(run: Run, rows: int, purpose: str = "train") -> Recipe:
    """How a teacher is trained on ``rows`` labelled rows."""
    config = run.config.teacher
    batch = min(config.batch, rows)
    return Recipe(
        phases=(("labelled", config.epochs * -(-rows // batch)),), learning_rate=config.learning_rate, batch=batch,
        labelled_batch=batch, clip=run.config.clip, dropout=run.config.dropout, seed=run.seed(0, purpose),
        auxiliary=auxiliary_of(run),
    )  # fmt: skip


def student_recipe(run: Run, number: int, drawn: int) -> Recipe:
    """How the student of a round is trained on ``drawn`` pseudo-labelled rows."""
    config, reweight = run.config.student, run.config.reweight
    warm = round(config.warmup * config.steps)
    tail = config.tail_epochs * -(-len(run.gold) // config.tail_batch)
    return Recipe(
        phases=(("warmup", warm), ("reweighted", config.steps - warm), ("tail", tail)),
        learning_rate=config.learning_rate, batch=min(config.batch, drawn), labelled_batch=config.tail_batch,
        cutoff=config.cutoff,
        meta_batch=reweight.batch, engine=reweight.engine, eps=reweight.eps, confidence=run.config.pseudo.confidence,
        clip=run.config.clip, dropout=run.config.dropout, seed=run.seed(number, "train"),
        auxiliary=auxiliary_of(run),
    )  # fmt: skip


def auxiliary_of(run: Run) -> Auxiliary | None:
    """The masked-LM loss that the stage asks for. Words that the template has are spared wherever they stand.

    In the template they are the same in every text, so that hiding them would break the prompt and teach nothing.
    """
    stage, tokenizer = pseudo_tokens(run.config.stage), run.prompt.tokenizer
    if not isinstance(stage, PTuning) or not stage.aux_weight:
        return None
    template = (token for ids in run.prompt.fixed.values() for token in ids if token >= 0)
    spared = tuple(sorted({*tokenizer.all_special_ids, *template}))
    return Auxiliary(
        stage.aux_probability, stage.aux_weight, tokenizer.mask_token_id,
        min(len(tokenizer), len(run.backbone.word_rows)), spared,
    )  # fmt: skip


def train_resumably(run: Run, number: int, trainer: Trainer, made_from: str) -> State:
    """All steps of ``trainer``, from its last step checkpoint if one of the same recipe and inputs is there.

    Whatever stops it but a kill leaves a checkpoint of the last whole step. It stays until ``forget_steps``.
    """
    key = hashlib.sha256(f"{trainer.recipe} {made_from}".encode()).hexdigest()[:12]
    path = run.round(number).step(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    forget_steps(run, number, but=path)
    if path.exists():
        # A damaged one costs time, never the run.
        with suppress(InputError):
            trainer.restore(load_checked(path))
    began = trainer.state.step
    try:
        return trainer.run(_saving(run, number, trainer, path))
    except BaseException:
        if trainer.state.step > began:
            # What stopped the training is what should be told. The signal that a cancelled run gets besides can wait.
            with undisturbed(), suppress(Exception):
                save_checked(path, trainer.snapshot())
        raise


def cross_validated(run: Run, offset: Tensor | None, parts: Sequence[np.ndarray] | None = None) -> Tensor:
    """(K, C) logits of labelled rows under teachers that were trained without them; zero for rows of no part."""
    logits = torch.zeros(len(run.gold), len(run.labels))
    for held in parts or folds(len(run.gold), FOLDS, generator_for(run.config.seed, "folds")):
        kept = np.setdiff1d(np.arange(len(run.gold)), held)
        model = run.new_classifier(0, offset)
        recipe = teacher_recipe(run, len(kept), "folds")
        trainer = Trainer(model, recipe, Material(run.labelled.take(kept), run.gold[kept], run.corpus))
        trainer.run(lambda tick: run.notify(Progress(0, "folds", tick.step, tick.steps, tick.loss)))
        logits[held] = logits_of(model, run.labelled.take(held))
    return logits


def keep_model(
    run: Run,
    number: int,
    model: Classifier,
    facts: Facts,
    unfitted: Tensor | None,
    began: float,
    weights: list[tuple[np.ndarray, np.ndarray]] | None = None,
    extra: Mapping[str, Tensor] | None = None,
) -> Facts:
    """Weights, evidence (``extra`` is more of it) and facts of a trained model, written as its folder."""
    known = {**(extra or {}), "sample": logits_on(run, number, "judge", model, run.judged_by())}
    if unfitted is not None:
        known["labelled"] = unfitted
    metrics = None
    if run.test is not None and run.test_gold is not None:
        rows = run.test_sample(number)
        known["test"] = logits_on(run, number, "test", model, run.test if rows is None else run.test.take(rows))
        metrics = metrics_of(known["test"], run.test_gold if rows is None else run.test_gold[rows])
    facts = {**facts, "round": number, "seed": run.config.seed, "test": metrics}
    with new_folder(run.round(number).model, {**facts, "seconds": time.monotonic() - began}) as aside:
        save_tensors(aside / WEIGHTS, model.tensors())
        save_tensors(aside / EVIDENCE, known)
        if weights is not None:
            save_meta_weights(aside / META_WEIGHTS, weights)
    forget_steps(run, number)
    return verified(run.round(number).model) or {}


def forget_steps(run: Run, number: int, but: Path | None = None) -> None:
    """Removes the step checkpoints of a round, whose model is kept now."""
    kept = run.round(number)
    for stale in (*kept.steps(), *kept.half_steps()):
        if stale != but:
            stale.unlink()


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


def _saving(run: Run, number: int, trainer: Trainer, path: Path) -> Callable[[Tick], None]:
    """Tells of every step, and saves one when enough time has gone by."""
    saved = time.monotonic()

    def on_step(tick: Tick) -> None:
        nonlocal saved
        run.notify(Progress(number, tick.phase, tick.step, tick.steps, tick.loss))
        if time.monotonic() - saved >= run.config.checkpoint_seconds:
            save_checked(path, trainer.snapshot())
            saved = time.monotonic()

    return on_step
