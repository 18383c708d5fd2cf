"""What a worker of a labelling does: loads the model once, then labels one shard after the other.

A shard's file is the same bytes whoever makes it; its record, written after it, makes it count.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from listflow.data.errors import InputError
from listflow.data.files import file_digest, replacing_shared
from listflow.data.shards import Shard, shard_batches
from listflow.pipeline.backbone.backbone import Backbone, Precision, resolve_device
from listflow.pipeline.results.finished import Finished
from listflow.pipeline.results.labelling import Labelling, Record
from listflow.pipeline.results.predictor import Predictor

ROWS_AT_ONCE = 8192
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


def label_shard(work: Labelling, shard: Shard, predictor: Predictor) -> None:
    """Writes the labels of a shard, then the record that makes them count.

    Its batches hold rows of this shard only, so that the file is the same whoever makes it. InputError when the shard
    was changed by hand, or nothing can be written; Stopped when its driver has stopped.
    """
    began, counts = time.monotonic(), np.zeros(len(work.labels), dtype=np.int64)
    with replacing_shared(work.output(shard)) as aside:
        for tops in _write(aside, work, shard, predictor):
            counts += np.bincount(tops, minlength=len(counts))
        sha256 = file_digest(aside)
    per_class = dict(zip(work.labels, counts.tolist(), strict=True))
    record = Record(shard.sha256, work.model, sha256, shard.rows, per_class, time.monotonic() - began)
    with replacing_shared(work.record(shard)) as aside:
        aside.write_text(json.dumps(asdict(record), ensure_ascii=False) + "\n", "utf-8")


def workers_here(run: Path) -> int:
    """How many workers suit this machine: one for each core, or a single one where the run's device is a GPU."""
    device = resolve_device(Finished.open(run).trained_on["device"])
    return len(os.sched_getaffinity(0)) if device == "cpu" else 1


def _write(aside: Path, work: Labelling, shard: Shard, predictor: Predictor) -> Iterator[np.ndarray]:
    """The class indices of each batch, when it is written."""
    with pq.ParquetWriter(aside, _schema(work.labels)) as writer:
        for batch in shard_batches(work.corpus, shard, ROWS_AT_ONCE):
            work.check_driven()
            soft = predictor.probabilities(list(zip(batch["text"].to_pylist(), batch["pair"].to_pylist(), strict=True)))
            tops = soft.argmax(1)
            ids = pc.binary_join_element_wise(work.manifest.name, batch["row"].cast(pa.string()), ":")
            columns = [ids, pa.array(work.labels).take(pa.array(tops)), pa.array(soft.max(1))]
            writer.write_batch(pa.record_batch([*columns, *map(pa.array, soft.T)], writer.schema))
            yield tops


def _schema(labels: list[str]) -> pa.Schema:
    found = [("row_id", pa.string()), ("label", pa.string()), ("confidence", pa.float32())]
    return pa.schema([*found, *((f"p_{label}", pa.float32()) for label in labels)])


def _predictor(work: Labelling) -> Predictor:
    """The model of ``work``: a backbone for all threads of this process, around it a classifier for this one."""
    key = f"{work.model} {work.arithmetic}"
    if key != _LOADED.model or _LOADED.predictor is None:
        with _LOADING:
            if work.model not in _BACKBONES:
                _BACKBONES.clear()
                # In the precision of its training, so that it does not matter which machine labels a shard.
                _BACKBONES[work.model] = work.run.load_backbone(PRECISIONS[work.run.trained_on["dtype"]])
            _LOADED.predictor = Predictor.of(work.run, _BACKBONES[work.model], work.arithmetic)
        _LOADED.model = key
    return _LOADED.predictor
