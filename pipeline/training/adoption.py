"""What a continued run takes over instead of training: the teacher of each view, and how far each view is believed."""

from __future__ import annotations

import time
from typing import Any

import torch

from listflow.pipeline.run.continuation import Parent
from listflow.pipeline.run.run import Run
from listflow.pipeline.storage.checkpoint import load_tensors
from listflow.pipeline.storage.run_folder import EVIDENCE, WEIGHTS
from listflow.pipeline.training.label_vectors import has_label_vectors, held_out, start_in
from listflow.pipeline.training.models import cross_validated, keep_model

Facts = dict[str, Any]


def adopt_teacher(run: Run, parent: Parent) -> Facts:
    """Round 0 of a view without training: its last promoted model in ``parent``, as its own round kept it.

    What the gate knows of it comes along where the labelled rows are the same ones, else it is measured anew. Label
    vectors keep their centre with them; what their students start from comes along too.
    """
    began = time.monotonic()
    last = parent.model_of(run.view)
    offset = None if last.offset is None else torch.tensor(last.offset)
    model = run.new_classifier(0, offset)
    model.load(load_tensors(last.model / WEIGHTS))
    unfitted = parent.unfitted(run.config, run.inputs.digests["labelled"], len(run.gold), run.view)
    if run.config.rounds.promote == "gated" and unfitted is None:
        unfitted = held_out(run) if has_label_vectors(run) else cross_validated(run, offset)
    facts = {"zero_shot": None, "offset": last.offset, "continues": last.weights}
    return keep_model(run, 0, model, facts, unfitted, began, extra=start_in(load_tensors(last.first / EVIDENCE)))
