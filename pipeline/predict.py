"""Prediction from a finished run: its ``final`` folder is all it needs besides the backbone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from data.errors import InputError
from data.read import Row, read_rows
from data.task import Task, parse_columns
from pipeline.backbone import Backbone, load_backbone
from pipeline.checkpoint import load_tensors, read_json, verified
from pipeline.config import build_config
from pipeline.infer import logits_of
from pipeline.model import Classifier
from pipeline.prompt import Prompt, Text, label_word_ids
from pipeline.stage_config import pseudo_tokens

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
        folder = Path(run_dir)
        folder = folder / "final" if (folder / "final").is_dir() else folder
        if not (folder / "model.json").exists():
            raise InputError(f"{run_dir} holds no finished model; finish the run with `listflow resume {run_dir}`.")
        if verified(folder) is None:
            raise InputError(f"a file in {folder} is damaged or changed; make it again with `listflow resume RUN`.")
        card = read_json(folder / "model.json")
        backbone = backbone or _load_backbone(card["backbone"])
        task = Task.model_validate(card["task"])
        words = label_word_ids(task, backbone.tokenizer, backbone.word_rows)
        config = build_config("fast", {"stage": card["stage"], "head": card["head"]})
        prompt = Prompt(task, backbone.tokenizer, card["max_length"], pseudo_tokens(config.stage))
        model = Classifier(backbone, config.stage, config.head, words)
        model.load(load_tensors(folder / "weights.safetensors"))
        return Predictor(model, prompt, task)

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
        return _write(Path(out), self._tables(rows, on_rows))

    def _tables(self, rows: Iterable[Row], on_rows: Callable[[int], None]) -> Iterator[pa.Table]:
        stream = iter(rows)
        while chunk := list(islice(stream, ROWS_AT_ONCE)):
            soft = self.probabilities([(row.text, row.pair) for row in chunk])
            top = [self.labels[i] for i in soft.argmax(1)]
            columns: dict[str, Any] = {"row": [row.number for row in chunk], "label": top}
            columns |= {f"p_{label}": soft[:, i] for i, label in enumerate(self.labels)}
            on_rows(len(chunk))
            yield pa.table(columns)


def _load_backbone(card: dict[str, Any]) -> Backbone:
    backbone = load_backbone(card["name"], card["precision"], card["device"])
    if backbone.dtype_name == card["dtype"] and backbone.checksum() != card["checksum"]:
        raise InputError(f"backbone '{card['name']}' is not the one this model was trained on; restore that version.")
    return backbone


def _write(out: Path, tables: Iterator[pa.Table]) -> int:
    """All tables into ``out``, which appears whole or not at all."""
    if out.suffix not in {".csv", ".tsv", ".jsonl", ".parquet"}:
        raise InputError(f"{out}: predictions are written as .csv, .tsv, .jsonl or .parquet; choose one of these.")
    if not out.parent.is_dir():
        raise InputError(f"{out}: the folder {out.parent} does not exist; create it first.")
    aside, count, writer = out.with_name(f"{out.name}.part"), 0, None
    try:
        for table in tables:
            writer = writer or _writer(out.suffix, aside, table.schema)
            writer.write_table(table)
            count += table.num_rows
    finally:
        if writer is not None:
            writer.close()
    os.replace(aside, out)
    return count


def _writer(suffix: str, path: Path, schema: pa.Schema) -> Any:
    if suffix == ".parquet":
        return pa.parquet.ParquetWriter(path, schema)
    if suffix == ".jsonl":
        return _JsonLines(path)
    options = pa.csv.WriteOptions(delimiter="\t" if suffix == ".tsv" else ",")
    return pa.csv.CSVWriter(path, schema, write_options=options)


class _JsonLines:
    """JSON lines with the interface of pyarrow's other writers."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8")

    def write_table(self, table: pa.Table) -> None:
        self.file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())

    def close(self) -> None:
        self.file.close()
