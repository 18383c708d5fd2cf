"""The rounds of LiST: prompt-tune, then label, reweight and train, judge, promote (arXiv 2110.06274, alg. 1).

Every function finds its work done or does it: it returns the manifest of a folder whose inputs and outputs
verify, so a run can stop anywhere and go on with the same bytes.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from listflow.pipeline.method.gate import Evidence, Judgement, gate
from listflow.pipeline.method.metrics import agreement
from listflow.pipeline.method.sampling import generator_for
from listflow.pipeline.method.soft_labels import soft_labels, teacher_prior
from listflow.pipeline.model.classifier import Classifier, logits_of
from listflow.pipeline.run.run import Run, counter
from listflow.pipeline.storage.checkpoint import load_tensors, new_folder, verified, write_json
from listflow.pipeline.storage.pseudo_labels import PseudoLabels
from listflow.pipeline.storage.run_folder import LABELS
from listflow.pipeline.training.adoption import adopt_teacher
from listflow.pipeline.training.committee import mixture_of, said_of, speaking
from listflow.pipeline.training.label_vectors import folds_of, has_label_vectors, match_labels, start_of, stated_shares
from listflow.pipeline.training.models import (
    cross_validated,
    keep_model,
    logits_on,
    metrics_of,
    student_recipe,
    teacher_recipe,
    train_resumably,
    weight_facts,
)
from listflow.pipeline.training.review import close_before, corrected_rows, correction_inputs, gold_of, with_corrections
from listflow.pipeline.training.trainer import Material, Trainer

Facts = dict[str, Any]


def prompt_tune(run: Run) -> Facts:
    """Round 0: the teacher of a view, from the labelled rows; cross-entropy on the label words for the prompt."""
    folder = run.round(0).model
    done = verified(folder)
    if done:
        return done
    if run.parent is not None:
        return adopt_teacher(run, run.parent)
    if has_label_vectors(run):
        return match_labels(run)
    began = time.monotonic()
    offset = _centre(run)
    model = run.new_classifier(0, offset)
    trainer = Trainer(model, teacher_recipe(run, len(run.gold)), Material(run.labelled, run.gold, run.corpus))
    train_resumably(run, 0, trainer, run.fingerprint)
    unfitted = cross_validated(run, offset) if run.config.rounds.promote == "gated" else None
    facts = {"zero_shot": _zero_shot(run, offset), "offset": None if offset is None else offset.tolist()}
    return keep_model(run, 0, model, facts, unfitted, began)


def pseudo_label(run: Run, number: int) -> Facts:
    """The round's seeded draw of unlabelled rows with the teacher's soft labels, each computed once."""
    close_before(run, number)
    teachers = run.teachers_of(number)
    digests = [digest for teacher in teachers for digest in _models(run, teacher)]
    inputs = {"teachers": digests, **correction_inputs(run, number)}
    folder = run.round(number).pseudo
    done = _complete(folder, inputs)
    if done:
        return done
    rows = draw_rows(run, number)
    logits = _opinion(run, number, teachers, rows)
    config = run.config.pseudo
    prior = _shares(run, number) if config.prior == "shares" else None
    if config.prior == "teacher":
        prior = teacher_prior(said_of(run, 0, "sample"), run.gold, config.temperature, config.prior_errors)
    soft = soft_labels(logits, config.temperature, prior)
    labels = PseudoLabels(rows, soft.numpy())
    facts = {"inputs": inputs, "round": number, "teacher_round": teachers[-1], **labels.summary(run.labels)}
    with new_folder(folder, facts) as aside:
        labels.save(aside / LABELS, run.inputs.pool, run.labels)
    return verified(folder) or {}


def _shares(run: Run, number: int) -> Tensor | None:
    """(C,) what a round's soft labels are held at: the shares that the user states, or those of the first round's.

    None in the first round, whose labels are as the teachers of round 0 see the pool.
    """
    stated = stated_shares(run)
    if stated is not None or number == 1:
        return stated
    return torch.from_numpy(PseudoLabels.load(run.round(1).labels, len(run.labels)).soft).mean(0)


def train_student(run: Run, number: int) -> Facts:
    """A fresh student: KD warm-up, meta-reweighted steps and the labelled tail under one decay."""
    kept = run.round(number)
    manifest = verified(kept.pseudo)
    assert manifest is not None, f"round {number} has no pseudo labels yet"
    inputs = {"pseudo": manifest["files"][LABELS], **correction_inputs(run, number)}
    done = _complete(kept.model, inputs)
    if done:
        return done
    began = time.monotonic()
    labels = PseudoLabels.load(kept.labels, len(run.labels))
    seen = with_corrections(run, number)
    material = Material(seen.labelled, seen.gold, run.corpus.take(labels.rows), torch.from_numpy(labels.soft))
    model = new_student(run, number)
    trainer = Trainer(model, student_recipe(seen, number, len(labels.rows)), material)
    state = train_resumably(run, number, trainer, " ".join(inputs.values()))
    facts = {"inputs": inputs, "reweight": weight_facts(run, state)}
    weights = [(labels.rows[rows], weights) for rows, weights in state.weighed]
    return keep_model(run, number, model, facts, state.unfitted, began, weights)


def judge(run: Run, number: int) -> Facts:
    """The verdict on a round's student: whether it becomes the teacher, and whether the rounds may stop."""
    teacher = run.teacher_of(number)
    models = {
        f"{role}{view.suffix}": view.weights_digest(of)
        for view in speaking(run)
        for role, of in (("teacher", teacher), ("student", number))
    }
    before, after = evidence(run, teacher), evidence(run, number)
    kappa = agreement(before.sample, after.sample)
    judgement = Judgement(True, "every student is promoted")
    if run.config.rounds.promote == "gated":
        judgement = gate(before, after, len(run.labels))
    threshold = run.config.rounds.stop_at_agreement
    verdict = {
        "format": 1, "round": number, "teacher_round": teacher, "inputs": models, "promoted": judgement.promote,
        "reason": judgement.reason, "agreement": kappa,
        "stop": bool(judgement.promote and threshold is not None and kappa >= threshold),
    }  # fmt: skip
    write_json(run.round(number).verdict, verdict)
    return verdict


def draw_rows(run: Run, number: int) -> np.ndarray:
    """As many distinct rows as the round's steps can use, in corpus order; rows that ``run.parent`` never saw first.

    Rows that were corrected before are labelled ones, and not drawn.
    """
    rest = np.setdiff1d(np.arange(len(run.corpus)), corrected_rows(run, number))
    wanted = min(len(rest), run.config.student.steps * run.config.student.batch)
    rng = generator_for(run.config.seed, number, "draw")
    if run.parent is None:
        return np.sort(rng.choice(rest, size=wanted, replace=False))
    fresh = np.intersect1d(run.fresh_rows(), rest, assume_unique=True)
    if len(fresh) >= wanted:
        return np.sort(rng.choice(fresh, size=wanted, replace=False))
    known = np.setdiff1d(rest, fresh, assume_unique=True)
    return np.sort(np.concatenate([fresh, rng.choice(known, size=wanted - len(fresh), replace=False)]))


def load_model(run: Run, number: int) -> Classifier:
    """The teacher (0) or a round's student, ready to predict. InputError when its weights are damaged."""
    model = run.new_classifier(number, _offset(run) if number else None)
    model.load(load_tensors(run.round(number).weights))
    return model


def new_student(run: Run, number: int) -> Classifier:
    """A student before its first step; label vectors start from labelled rows and names, never from the pool."""
    model = run.new_classifier(number, _offset(run))
    if has_label_vectors(run):
        model.load(start_of(run))
    return model


def evidence(run: Run, number: int) -> Evidence:
    """What was written down about a round's committee when its models were trained."""
    gold = gold_of(run, number)
    mixture = mixture_of(run)
    kept = [load_tensors(view.round(number).evidence) for view, _ in mixture.speaking(run)]
    wrong = torch.zeros(len(gold))
    if all("labelled" in tensors for tensors in kept):
        wrong = mixture.logits(number, [tensors["labelled"] for tensors in kept]).argmax(-1) != gold
    if has_label_vectors(run.views[-1]):
        # The only row of a class is held out of nothing: label vectors know it by heart.
        held = np.sort(np.concatenate([*folds_of(run), np.arange(0)]))
        wrong = wrong[np.concatenate([held, np.arange(len(run.gold), len(gold))]).astype(int)]
    sample = mixture.logits(number, [tensors["sample"] for tensors in kept])
    return Evidence(wrong.numpy(), sample.argmax(-1).numpy())


def committee_logits(run: Run, number: int, rows: np.ndarray, on_rows: Callable[[int], None]) -> Tensor:
    """(N, C) logits of unlabelled ``rows`` by the committee of a round."""
    views = speaking(run)
    found = [logits_of(load_model(view, number), view.corpus.take(rows), on_rows) for view in views]
    return mixture_of(run).logits(number, found)


def _opinion(run: Run, number: int, teachers: list[int], rows: np.ndarray) -> Tensor:
    """(N, C) logits of the mean probability over the committees of ``teachers``; none is asked twice about one set."""
    drawn = hashlib.sha256(rows.tobytes()).hexdigest()
    keys = {teacher: " ".join([drawn, str(teacher), *_models(run, teacher)]) for teacher in teachers}
    known = {teacher: run.said[key] for teacher, key in keys.items() if key in run.said}
    on_rows = counter(run.notify, number, "label", (len(keys) - len(known)) * len(rows) * len(speaking(run)))
    each = {
        key: known[teacher] if teacher in known else committee_logits(run, teacher, rows, on_rows).log_softmax(-1)
        for teacher, key in keys.items()
    }
    run.said.clear()
    run.said.update(each)
    return torch.stack(list(each.values())).logsumexp(0) - math.log(len(each))


def _models(run: Run, number: int) -> list[str]:
    """The digests of the models that speak for a round."""
    return [view.weights_digest(number) for view in speaking(run)]


def _centre(run: Run) -> Tensor | None:
    """(C,) the mean label-word logits on unlabelled rows, where the head takes them off."""
    if run.config.head.kind != "verbalizer" or not run.config.head.centre:
        return None
    return logits_on(run, 0, "centre", run.new_classifier(0, None), run.judged_by()).mean(0)


def _zero_shot(run: Run, offset: Tensor | None) -> Facts | None:
    """Test metrics of the untouched backbone."""
    if run.test is None or run.test_gold is None:
        return None
    rows = run.test_sample(1)
    test, gold = (run.test, run.test_gold) if rows is None else (run.test.take(rows), run.test_gold[rows])
    return metrics_of(logits_on(run, 0, "zero-shot", run.new_classifier(0, offset), test), gold)


def _offset(run: Run) -> Tensor | None:
    manifest = verified(run.round(0).model) or {}
    return None if manifest.get("offset") is None else torch.tensor(manifest["offset"])


def _complete(folder: Path, inputs: Facts) -> Facts | None:
    """The manifest of ``folder`` when it verifies and was made from ``inputs``."""
    manifest = verified(folder)
    return manifest if manifest is not None and manifest["inputs"] == inputs else None
