"""What a worker of a labelling does: loads the model once, then labels one shard after the other."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import torch

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import Backbone, Precision, resolve_device
from listflow.pipeline.finished import Finished
from listflow.pipeline.label_shard import label_shard
from listflow.pipeline.results.labelling import Labelling
from listflow.pipeline.results.predictor import Predictor

PRECISIONS: dict[str, Precision] = {"float32": "fp32", "bfloat16": "bf16"}


class _Loaded(threading.local):
    """The model that a thread used last."""

    model = ""
    predictor: Predictor | None = None


_LOADED = _Loaded()
_LOADING = threading.Lock()
_BACKBONES: dict[str, Backbone] = {}


def label_range(
    run: Path, corpus: Path, folder: Path, first: int, last: int, threads: int = 1, driver: str = ""
) -> int:
    """Labels what is left of the shards ``first`` to ``last``; returns how many it labelled.

    ``threads`` is how many torch uses; another number changes the last digits of probabilities. A shard that cannot be
    labelled keeps no other from it: the first InputError is raised at the end. Stopped where ``driver``, by default
    who drives the labelling now, has stopped.
    """
    torch.set_num_threads(threads)
    work, count, refused = Labelling.open(run, corpus, folder).driven_by(driver), 0, None
    for shard in work.manifest.shards:
        if first <= shard.number <= last and not work.is_done(shard):
            work.check_driven()  # before a model is loaded for nothing
            predictor = _predictor(work)
            try:
                label_shard(work, shard, predictor)
                count += 1
            except InputError as error:
                refused = refused or error
    if refused is not None:
        raise refused
    return count


def workers_here(run: Path) -> int:
    """How many workers suit this machine: one for each core, or a single one where the run's device is a GPU."""
    device = resolve_device(Finished.open(run).trained_on["device"])
    return len(os.sched_getaffinity(0)) if device == "cpu" else 1


def _predictor(work: Labelling) -> Predictor:
    """The model of ``work``: a backbone for all threads of this process, around it a classifier for this one."""
    if _LOADED.model != work.model or _LOADED.predictor is None:
        with _LOADING:
            if work.model not in _BACKBONES:
                _BACKBONES.clear()
                # In the precision of its training, so that it does not matter which machine labels a shard.
                _BACKBONES[work.model] = work.run.load_backbone(PRECISIONS[work.run.trained_on["dtype"]])
            _LOADED.predictor = Predictor.of(work.run, _BACKBONES[work.model])
        _LOADED.model = work.model
    return _LOADED.predictor
