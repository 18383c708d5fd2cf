"""Prediction from a finished run: its ``final`` folder is all it needs besides the backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from listflow.data.rows import Row, read_rows
from listflow.data.task import Task, parse_columns
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.prompt import Prompt, Text
from listflow.pipeline.finished import Finished
from listflow.pipeline.infer import logits_of
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.prediction_file import write_tables

ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Predictor:
    """A classifier for texts; ``labels`` in the order of the probability columns."""

    model: Classifier
    prompt: Prompt
    task: Task

    @property
    def labels(self) -> list[str]:
        return list(self.task.labels)

    @staticmethod
    def open(run_dir: str | Path, backbone: Backbone | None = None) -> Predictor:
        """The final model of a run, or of its ``final`` folder moved elsewhere.

        InputError when the folder is no finished run, a file of it is damaged, or the backbone is another one.
        """
        return Predictor.of(Finished.open(run_dir), backbone)

    @staticmethod
    def of(run: Finished, backbone: Backbone | None = None) -> Predictor:
        """The model of ``run`` on ``backbone``, by default its own; InputError when that is another one now."""
        backbone = backbone or run.load_backbone()
        return Predictor(run.classifier(backbone), run.prompt(backbone), run.task)

    def logits(self, texts: Sequence[Text | str]) -> np.ndarray:
        """(N, C) fp32 class logits of texts, or of (text, second text) pairs."""
        rows = [(text, None) if isinstance(text, str) else text for text in texts]
        return logits_of(self.model, self.prompt.encode(rows)).numpy()

    def probabilities(self, texts: Sequence[Text | str]) -> np.ndarray:
        """(N, C) class probabilities."""
        logits = self.logits(texts)
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    def predict(self, texts: Sequence[Text | str]) -> list[str]:
        """The most probable label of each text."""
        return [self.labels[i] for i in self.logits(texts).argmax(1)]

    def predict_file(
        self,
        source: str,
        out: str | Path,
        columns: str | None = None,
        on_rows: Callable[[int], None] = lambda rows: None,
    ) -> int:
        """Writes row, label and ``p_<label>`` for every row of ``source`` to ``out``; returns the row count.

        ``out`` is csv, tsv, jsonl or parquet by its ending. Streams: memory does not grow with the file. A blank
        text is predicted like any other, so rows stay aligned.
        """
        named = parse_columns(columns) if columns else self.task.columns
        rows = read_rows(source, named, is_pair=self.task.is_pair)
        return write_tables(Path(out), source, self._tables(rows, on_rows))

    def columns(self, rows: Sequence[Row]) -> dict[str, Any]:
        """``label`` and ``p_<label>`` of the rows."""
        soft = self.probabilities([(row.text, row.pair) for row in rows])
        columns: dict[str, Any] = {"label": [self.labels[i] for i in soft.argmax(1)]}
        return columns | {f"p_{label}": soft[:, i] for i, label in enumerate(self.labels)}

    def _tables(self, rows: Iterable[Row], on_rows: Callable[[int], None]) -> Iterator[pa.Table]:
        stream = iter(rows)
        while chunk := list(islice(stream, ROWS_AT_ONCE)):
            table = pa.table({"row": [row.number for row in chunk]} | self.columns(chunk))
            on_rows(len(chunk))
            yield table
