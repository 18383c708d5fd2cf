"""The teacher of the text view: label vectors from labelled rows, names and the pool (method/label_vectors.py)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from listflow.pipeline.backbone.batch import Encoded
from listflow.pipeline.method.curve import learning_curve
from listflow.pipeline.method.gate import stratified
from listflow.pipeline.method.information import SCALE
from listflow.pipeline.method.label_vectors import Known, Taught, centre_of, teach
from listflow.pipeline.method.metrics import Curve
from listflow.pipeline.method.sampling import generator_for
from listflow.pipeline.model.classifier import Classifier, logits_of
from listflow.pipeline.model.config import PrototypesHead
from listflow.pipeline.model.label_names import label_sentences
from listflow.pipeline.model.prototypes import around, at_length
from listflow.pipeline.run.run import Progress, Run
from listflow.pipeline.storage.checkpoint import load_tensors, verified
from listflow.pipeline.training.models import keep_model, metrics_of

MOST_POOL = 2000  # rows of the pool that the teacher's loss sees
START = "start/"
Facts = dict[str, Any]


def match_labels(run: Run) -> Facts:
    """Round 0 of the text view: the manifest of its teacher's folder, made or found."""
    done = verified(run.round(0).model)
    if done:
        return done
    began = time.monotonic()
    run.notify(Progress(0, "match", 0, 1))
    centre, known = _known(run)
    folds = [rows.tolist() for rows in folds_of(run)]
    taught, alone = teach(known, folds), teach(known, folds, with_pool=False)
    model = classifier_of(run, centre, taught)
    facts: Facts = {
        "zero_shot": None, "offset": None, "candidates": [asdict(each) for each in taught.weighed],
        "labelled_only": None, "names_tell": taught.names_tell, "shares": taught.shares.tolist(),
    }  # fmt: skip
    if run.config.estimate:
        curve = learning_curve(known, alone.weighed, folds_of(run), generator_for(run.config.seed, "curve"))
        facts["curve"] = curve and asdict(curve)
    extra = {}
    if run.test is not None and run.test_gold is not None:
        extra["labelled_only"] = logits_of(classifier_of(run, centre, alone), run.test)
        facts["labelled_only"] = metrics_of(extra["labelled_only"], run.test_gold)
    start = {START + name: value for name, value in classifier_of(run, centre, alone).tensors().items()}
    return keep_model(run, 0, model, facts, taught.held_out, began, extra=extra | start)


def curve_of(run: Run) -> Curve | None:
    """What more labels would bring to the text view, where that was measured."""
    made = (verified(run.views[-1].round(0).model) or {}).get("curve")
    return Curve(tuple(made["labelled"]), tuple(made["accuracy"]), made["gain"], made["error"]) if made else None


def has_label_vectors(run: Run) -> bool:
    """Whether the view's teacher is made of label vectors, and not trained step by step."""
    return run.view == "text" and isinstance(run.config.head, PrototypesHead)


def folds_of(run: Run) -> list[np.ndarray]:
    """The sets of labelled rows that each are predicted without themselves, the same for every view."""
    return stratified(run.gold.numpy(), run.config.mixture.folds, generator_for(run.config.seed, "folds"))


def stated_shares(run: Run) -> Tensor | None:
    """(C,) the classes' shares of the pool that the user states; None where the task says nothing."""
    stated = run.inputs.task.shares
    return None if stated is None else torch.tensor([stated[label] for label in run.labels])


def held_out(run: Run) -> Tensor:
    """(K, C) logits of the labelled rows by teachers that are made anew without them."""
    return teach(_known(run)[1], [rows.tolist() for rows in folds_of(run)]).held_out


def start_in(evidence: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the ``evidence`` of a teacher holds of its students' start, by the names that it has there."""
    return {name: value for name, value in evidence.items() if name.startswith(START)}


def start_of(run: Run) -> dict[str, Tensor]:
    """What a student's label vectors start from: labelled rows and names alone."""
    kept = start_in(load_tensors(run.round(0).evidence))
    return {name.removeprefix(START): value for name, value in kept.items()}


def classifier_of(run: Run, centre: Tensor, made: Taught) -> Classifier:
    """The text view's classifier with these label vectors."""
    model = run.new_classifier(0, None)
    head = run.config.head
    assert isinstance(head, PrototypesHead)
    weight = made.weight * (SCALE / head.scale)
    model.load({"head.centre": centre, "head.out.weight": weight, "head.out.bias": made.bias})
    return model


def _known(run: Run) -> tuple[Tensor, Known]:
    """(the centre (F,), what the teacher is made of)."""
    chosen = generator_for(run.config.seed, "information").permutation(len(run.corpus))[:MOST_POOL]
    labelled, pool = _vectors(run.labelled), _vectors(run.corpus.take(np.sort(chosen)))
    head = run.config.head
    assert isinstance(head, PrototypesHead)
    labelled, pool = at_length(labelled, head), at_length(pool, head)
    centre = centre_of(labelled, run.gold)
    labelled, pool = around(labelled, centre, head), around(pool, centre, head)
    names, stated = _names(run, head), stated_shares(run)
    return centre, Known(labelled, run.gold, pool, names, len(run.labels), stated, run.inputs.task.is_pair)


def _names(run: Run, head: PrototypesHead) -> Tensor | None:
    """(C, F) unit vectors of what the labels are called, less their mean, zero where that says nothing.

    None where fewer than two say something, and for pairs, which no name is like.
    """
    face, said = run.face, label_sentences(run.inputs.task, run.backbone.tokenizer)
    assert face is not None
    places = [place for place, sentences in enumerate(said) if sentences]
    if len(places) < 2 or run.inputs.task.is_pair:
        return None
    asked = [[(sentence, None) for sentence in way] for way in zip(*filter(None, said), strict=True)]
    ways = [at_length(face.vectors(way), head) for way in asked]
    mean = torch.stack([around(way, way.mean(0), head) for way in ways]).mean(0)
    found = torch.zeros(len(said), mean.shape[1])
    found[places] = F.normalize(mean, dim=-1)
    return found


def _vectors(encoded: Encoded) -> Tensor:
    """(N, F) vectors of rows of one vector each."""
    assert encoded.features is not None
    return torch.from_numpy(np.array(encoded.features.values[encoded.features.starts]))
