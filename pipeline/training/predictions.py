"""A label for every unlabelled row of a run, by its final model.

Where the rounds read a sample, the sources are gone through once more, and what is not in the sample has never had a
label of a teacher or a meta weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from listflow.data.errors import InputError
from listflow.data.files import replacing
from listflow.data.rows import Counted, digest
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.backbone.text_face import TextFace
from listflow.pipeline.model.arithmetic import fastest
from listflow.pipeline.model.classifier import Classifier, logits_of
from listflow.pipeline.model.unpadded import reading_by
from listflow.pipeline.run.run import Run, counter
from listflow.pipeline.storage.pseudo_labels import PseudoLabels, look_up
from listflow.pipeline.training.committee import mean_meta_weights, mixture_of, speaking
from listflow.pipeline.training.rounds import committee_logits, load_model

ROWS_AT_ONCE = 8192
Some = tuple[list[str], np.ndarray, Tensor]  # ids of rows, their indices in the pool, their logits (N, C)


def write_predictions(run: Run, winner: int, last: int, temperature: float, path: Path) -> None:
    """Writes a row for every unlabelled one, in the order of the sources, by the model of round ``winner``.

    row_id, corpus, label, p_<label>; what the teachers of the rounds to ``last`` gave that label, and the row's mean
    meta weight, where it has them. InputError where a source is not what it was when the run was begun.
    """
    writer: pq.ParquetWriter | None = None
    with replacing(path) as aside:
        for table in _tables(run, winner, last, temperature):
            writer = writer or pq.ParquetWriter(aside, table.schema)
            writer.write_table(table)
        assert writer is not None
        writer.close()


def _tables(run: Run, winner: int, last: int, temperature: float) -> Iterator[pa.Table]:
    built = run.inputs.built
    on_rows = counter(run.notify, last, "predict", built.rows * len(speaking(run)))
    told = [PseudoLabels.load(run.round(number).labels, len(run.labels)) for number in range(1, last + 1)]
    weights = mean_meta_weights(run, *range(1, last + 1))
    for ids, rows, logits in (_streamed if built.is_sample else _kept)(run, winner, on_rows):
        soft = (logits / temperature).softmax(-1).numpy()
        top = soft.argmax(1)
        columns: dict[str, Any] = {
            "row_id": ids,
            "corpus": [row_id.rpartition(":")[0] for row_id in ids],
            "label": [run.labels[i] for i in top],
        }
        columns |= {f"p_{label}": soft[:, i] for i, label in enumerate(run.labels)}
        for number, labels in enumerate(told, 1):
            chosen = look_up(labels.rows, np.arange(len(labels.rows)), rows)
            value = np.where(chosen >= 0, labels.soft[chosen.astype(int), top], np.nan)
            columns[f"teacher_round_{number}"] = pa.array(value.astype(np.float32), mask=chosen < 0)
        weight = look_up(*weights, rows)
        columns["meta_weight"] = pa.array(weight.astype(np.float32), mask=weight < 0)
        yield pa.table(columns)


def _kept(run: Run, winner: int, on_rows: Callable[[int], None]) -> Iterator[Some]:
    """The whole pool, some rows at a time, by what is kept of them."""
    for start in range(0, len(run.corpus), ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, len(run.corpus)))
        yield run.inputs.pool.row_ids(rows.tolist()), rows, committee_logits(run, winner, rows, on_rows)


def _streamed(run: Run, winner: int, on_rows: Callable[[int], None]) -> Iterator[Some]:
    """All rows of the sources, some at a time, by their texts; -1 is the index of a row that is not in the pool."""
    asked, pool = run.inputs.unlabelled, run.inputs.pool
    models = [_reading(view, winner) for view in speaking(run)]
    mixture, spans = mixture_of(run), pool.spans()
    _check_unchanged(run)
    for name in asked.names:
        rows = asked.kept(name, Counted())
        while some := list(islice(rows, ROWS_AT_ONCE)):
            texts = [(row.text, row.pair) for row in some]
            found = [logits_of(model, encoder.encode(texts), on_rows) for model, encoder in models]
            numbers = np.array([row.number for row in some])
            places = pool.find(spans.get(name, range(0)), numbers)
            yield [f"{name}:{number}" for number in numbers], places, mixture.logits(winner, found)


def _reading(view: Run, winner: int) -> tuple[Classifier, Prompt | TextFace]:
    """A view's model of round ``winner`` and what reads texts for it, as fast as a finished model does."""
    model, backbone = load_model(view, winner), view.backbone
    fast = fastest(backbone.dtype_name, backbone.device.type)
    return model, reading_by(fast, model, view.face or view.prompt, backbone)


def _check_unchanged(run: Run) -> None:
    """InputError where a source is not what it was when the run was begun."""
    asked = run.inputs.unlabelled
    for name, source in asked.names.items():
        try:
            is_same = digest(source, asked.contents[name]) == asked.contents[name]
        except InputError:
            is_same = False
        if not is_same:
            raise InputError(
                f"{source}: was changed or removed since the run was begun, and its rows are still to be labelled; "
                f"restore it and give `listflow resume {run.folder}`, which trains nothing again."
            )
