"""One shard of a corpus labelled: the unit of failure and resume."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from listflow.data.shards import Shard, shard_batches
from listflow.pipeline.appearing import appears
from listflow.pipeline.results.labelling import Labelling, Record
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.storage.checkpoint import file_digest

ROWS_AT_ONCE = 8192


def label_shard(work: Labelling, shard: Shard, predictor: Predictor) -> None:
    """Writes the labels of a shard, then the record that makes them count.

    Its batches hold rows of this shard only, so that the file is the same whoever makes it. InputError when the shard
    was changed by hand, or nothing can be written; Stopped when its driver has stopped.
    """
    began, counts = time.monotonic(), np.zeros(len(work.labels), dtype=np.int64)
    with appears(work.output(shard)) as aside:
        for tops in _write(aside, work, shard, predictor):
            counts += np.bincount(tops, minlength=len(counts))
        sha256 = file_digest(aside)
    per_class = dict(zip(work.labels, counts.tolist(), strict=True))
    record = Record(shard.sha256, work.model, sha256, shard.rows, per_class, time.monotonic() - began)
    with appears(work.record(shard)) as aside:
        aside.write_text(json.dumps(asdict(record), ensure_ascii=False) + "\n", "utf-8")


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
