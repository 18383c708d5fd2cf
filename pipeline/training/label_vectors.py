"""The teacher of the text view: label vectors from labelled rows, names and the pool (method/label_vectors.py)."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from listflow.pipeline.backbone.batch import Encoded
from listflow.pipeline.method.gate import stratified
from listflow.pipeline.method.label_vectors import Known, Map, teach
from listflow.pipeline.method.sampling import generator_for
from listflow.pipeline.model.classifier import Classifier, logits_of
from listflow.pipeline.model.config import PrototypesHead
from listflow.pipeline.run.run import Run
from listflow.pipeline.storage.checkpoint import load_tensors, verified
from listflow.pipeline.training.models import keep_model, metrics_of

WAYS_TO_NAME = ("{}", "This is about {}.", "This text is about {}.")
MOST_POOL = 2000  # rows of the pool that the teacher's loss sees
Facts = dict[str, Any]


def match_labels(run: Run) -> Facts:
    """Round 0 of the text view: the manifest of its teacher's folder, made or found."""
    done = verified(run.round(0).model)
    if done:
        return done
    began = time.monotonic()
    known = _known(run)
    folds = stratified(run.gold.numpy(), run.config.mixture.folds, generator_for(run.config.seed, "folds"))
    taught, alone = teach(known, folds), teach(known, folds, with_pool=False)
    model = classifier_of(run, taught.map)
    facts: Facts = {
        "zero_shot": None, "offset": None, "candidates": [asdict(each) for each in taught.weighed],
        "labelled_only": None,
    }  # fmt: skip
    extra = {}
    if run.test is not None and run.test_gold is not None:
        extra["labelled_only"] = logits_of(classifier_of(run, alone.map), run.test)
        facts["labelled_only"] = metrics_of(extra["labelled_only"], run.test_gold)
    start = {f"start/{name}": value for name, value in classifier_of(run, alone.map).tensors().items()}
    return keep_model(run, 0, model, facts, taught.held_out, began, extra=extra | start)


def has_label_vectors(run: Run) -> bool:
    """Whether the view's teacher is made of label vectors, and not trained step by step."""
    return run.view == "text" and isinstance(run.config.head, PrototypesHead)


def start_of(run: Run) -> dict[str, Tensor]:
    """What a student's label vectors start from: labelled rows and names alone."""
    kept = load_tensors(run.round(0).evidence)
    return {name.removeprefix("start/"): value for name, value in kept.items() if name.startswith("start/")}


def classifier_of(run: Run, made: Map) -> Classifier:
    """The text view's classifier with these label vectors."""
    model = run.new_classifier(0, None)
    model.load({"head.centre": made.centre, "head.out.weight": made.weight, "head.out.bias": made.bias})
    return model


def _known(run: Run) -> Known:
    """What the teacher is made of."""
    rows = generator_for(run.config.seed, "information").permutation(len(run.corpus))[:MOST_POOL]
    pool = _vectors(run.corpus.take(np.sort(rows)))
    return Known(_vectors(run.labelled), run.gold, pool, _names(run), len(run.labels))


def _names(run: Run) -> Tensor | None:
    """(C, F) unit vectors of what the labels are called, less their mean; None for pairs, which no name is like."""
    face = run.face
    assert face is not None
    if run.inputs.task.is_pair:
        return None
    words = [(word or label).replace("_", " ").replace("-", " ") for label, word in run.inputs.task.labels.items()]
    ways = [face.vectors([(way.format(word), None) for word in words]) for way in WAYS_TO_NAME]
    found = torch.stack([F.normalize(way - way.mean(0), dim=-1) for way in ways]).mean(0)
    return F.normalize(found, dim=-1)


def _vectors(encoded: Encoded) -> Tensor:
    """(N, F) unit vectors of rows of one vector each."""
    assert encoded.features is not None
    return F.normalize(torch.from_numpy(np.array(encoded.features.values[encoded.features.starts])), dim=-1)
