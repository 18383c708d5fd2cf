"""Prediction from a finished run: its ``final`` folder is all it needs besides the backbone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from listflow.data.errors import InputError
from listflow.data.files import file_digest, replacing
from listflow.data.rows import Row, read_rows
from listflow.data.shards import is_corpus
from listflow.data.task import Task, parse_columns
from listflow.pipeline.backbone.backbone import Backbone, Identity, Precision, load_backbone
from listflow.pipeline.backbone.prompt import Prompt, Text
from listflow.pipeline.model.classifier import Classifier, logits_of
from listflow.pipeline.model.config import AnyHead
from listflow.pipeline.model.verbalizer import word_ids_for
from listflow.pipeline.run.config import build_config
from listflow.pipeline.stages.config import AnyStage
from listflow.pipeline.stages.presets import pseudo_tokens
from listflow.pipeline.storage.checkpoint import load_tensors, read_json, verified
from listflow.pipeline.storage.run_folder import CARD, WEIGHTS, RunFolder


@dataclass(frozen=True)
class Finished:
    """The final model of a run. ``run`` is the folder that was asked for, ``trained_on`` the card of its backbone."""

    run: Path
    folder: Path
    task: Task
    stage: tuple[AnyStage, ...]
    head: AnyHead
    max_length: int
    trained_on: dict[str, Any]

    @staticmethod
    def open(run_dir: str | Path) -> Finished:
        """The final model of a run, or of its ``final`` folder moved elsewhere.

        InputError when the folder is no finished run, or a file of it is damaged.
        """
        run = Path(run_dir)
        inside = RunFolder(run).final
        folder = inside if inside.is_dir() else run
        if not (folder / CARD).exists():
            raise InputError(_why_none(run))
        if verified(folder) is None:
            raise InputError(f"a file in {folder} is damaged or changed; make it again with `listflow resume RUN`.")
        card = read_json(folder / CARD)
        config = build_config("fast", {"stage": card["stage"], "head": card["head"]})
        task = Task.model_validate(card["task"])
        return Finished(run, folder, task, config.stage, config.head, card["max_length"], card["backbone"])

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        whole = self.run.resolve()
        return whole.parent.name if whole.name == RunFolder(whole.parent).final.name else whole.name

    def digest(self) -> str:
        """sha256 over the model: its weights, its task, and the checksum of the backbone that it needs."""
        files = (file_digest(self.folder / name) for name in (WEIGHTS, CARD))
        return hashlib.sha256("".join(files).encode()).hexdigest()

    def load_backbone(self, precision: Precision | None = None, device: str | None = None) -> Backbone:
        """The backbone that the run was trained on, as it was or as asked; InputError when it is another one now."""
        card = self.trained_on
        backbone = load_backbone(card["name"], precision or card["precision"], device or card["device"])
        if not backbone.identity().is_of(Identity.of(card)):
            raise InputError(
                f"backbone '{card['name']}' is not the one this model was trained on; restore that version."
            )
        return backbone

    def classifier(self, backbone: Backbone) -> Classifier:
        """The trained classifier, on ``backbone``."""
        model = Classifier(backbone, self.stage, self.head, self.word_ids(backbone))
        model.load(load_tensors(self.folder / WEIGHTS))
        return model

    def prompt(self, backbone: Backbone) -> Prompt:
        """What turns texts into the classifier's input."""
        return Prompt(self.task, backbone.tokenizer, self.max_length, pseudo_tokens(self.stage))

    def word_ids(self, backbone: Backbone) -> tuple[int, ...]:
        """The token id of each label's word, in label order; see ``word_ids_for``."""
        return word_ids_for(self.head, self.task, backbone)


def _why_none(run: Path) -> str:
    """Why there is no model in ``run``, and what to do."""
    if not run.is_dir():
        return f"there is no folder {run}; give that of a finished run."
    if not RunFolder(run).config.exists():
        return f"{run} is no run and holds no finished model; give the folder of a finished run."
    return f"{run} holds no finished model; finish the run with `listflow resume {run}`."


def write_tables(out: Path, source: str, tables: Iterable[pa.Table]) -> int:
    """All tables, made from ``source``, into ``out``, which appears whole or not at all; returns the row count.

    InputError for another ending, a folder that is not there, or an ``out`` that is ``source`` or lies in its corpus.
    """
    if out.suffix not in {".csv", ".tsv", ".jsonl", ".parquet"}:
        raise InputError(f"{out}: predictions are written as .csv, .tsv, .jsonl or .parquet; choose one of these.")
    if not out.parent.is_dir():
        raise InputError(f"{out}: the folder {out.parent} does not exist; create it first.")
    _check_apart(out, source)
    count, writer = 0, None
    with replacing(out) as aside:
        try:
            for table in tables:
                writer = writer or _writer(out.suffix, aside, table.schema)
                writer.write_table(table)
                count += table.num_rows
        finally:
            if writer is not None:
                writer.close()
    return count


def _check_apart(out: Path, source: str) -> None:
    same = out.exists() and Path(source).exists() and out.samefile(source)
    if same or (is_corpus(source) and out.resolve().is_relative_to(Path(source).resolve())):
        raise InputError(f"{out}: the labels would take the place of the texts in {source}; choose another --output.")


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
