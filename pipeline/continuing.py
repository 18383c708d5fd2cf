"""A run that goes on from a finished one: its teacher is that run's final model, and new rows come first."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from listflow.pipeline.run.continuation import Parent
from listflow.pipeline.run.run import Run
from listflow.pipeline.seeds import generator_for
from listflow.pipeline.storage.checkpoint import load_tensors
from listflow.pipeline.training.models import cross_validated, keep_model
from listflow.pipeline.training.review import corrected_rows


def adopt_teacher(run: Run, parent: Parent, began: float) -> dict[str, Any]:
    """Round 0 without training: the last promoted model of ``parent``, as its own round kept it.

    What the gate knows of it comes along where the labelled rows are the same ones, else it is measured anew.
    """
    offset = None if parent.offset is None else torch.tensor(parent.offset)
    model = run.new_classifier(0, offset)
    model.load(load_tensors(parent.model / "weights.safetensors"))
    unfitted = parent.unfitted(run.config, run.inputs.digests["labelled"], len(run.gold))
    if run.config.rounds.promote == "gated" and unfitted is None:
        unfitted = cross_validated(run, offset)
    facts = {"zero_shot": None, "offset": parent.offset, "continues": parent.weights}
    return keep_model(run, 0, model, facts, unfitted, began)


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
