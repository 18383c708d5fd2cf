"""A finished run, opened: its ``final`` folder is all that it needs besides the backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa

from listflow.data.errors import InputError
from listflow.data.files import at_home
from listflow.data.rows import Row, columns_that_fit, read_rows
from listflow.data.task import Columns, Task, parse_columns
from listflow.data.values import texts_of
from listflow.pipeline.backbone.backbone import (
    Backbone,
    Identity,
    Precision,
    absolute_backbone,
    resolve_device,
    resolve_precision,
)
from listflow.pipeline.backbone.prompt import Prompt, Text
from listflow.pipeline.backbone.text_face import TextFace
from listflow.pipeline.model.arithmetic import Arithmetic, check_here, fastest
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.committee import Committee
from listflow.pipeline.model.unpadded import is_unpadded
from listflow.pipeline.results.finished import Files, Finished, are_whole
from listflow.pipeline.results.tables import Shape, write_tables

ROWS_AT_ONCE = 4096
BY_TASK = ("row", "task", "label", "confidence")  # the columns of rows that were each labelled by one run of several

# Name, precision and device of a backbone, as ``load_backbone`` takes them.
Home = tuple[str, Precision, str]


@dataclass(frozen=True, eq=False)
class Predictor:
    """A classifier for texts; ``labels`` in the order of the probability columns.

    It can be pickled, to hand it to another process: what it needs of ``final``, byte for byte, and the name of its
    backbone, which is loaded and checked there as by ``open``. To keep a model, keep ``final``: a pickle is for this
    version alone. A copy shares everything; a deep copy has a classifier of its own, from the same files, on the same
    frozen backbone.
    """

    run: Finished
    backbone: Backbone
    committee: Committee
    arithmetic: Arithmetic = "padded"

    @property
    def model(self) -> Classifier:
        """The classifier, or that of the first view."""
        return self.committee.views[0].model

    @property
    def prompt(self) -> Prompt | TextFace:
        """What turns texts into the input of ``model``."""
        return self.committee.views[0].encoder

    @property
    def task(self) -> Task:
        """What the labels mean, and what the texts are put into."""
        return self.run.task

    @property
    def labels(self) -> list[str]:
        """In the order of the probability columns."""
        return list(self.task.labels)

    @property
    def unknown(self) -> float:
        """The share of unknown tokens among those of all texts that it has met, 0 to 1."""
        return self.prompt.met.share

    @staticmethod
    def open(run_dir: str | Path, backbone: Backbone | None = None, arithmetic: Arithmetic | None = None) -> Predictor:
        """The final model of a run, or of its ``final`` folder moved elsewhere.

        ``arithmetic`` is by default the fastest one here that loses nothing; ``int8`` is faster and may change labels.
        InputError when the folder is no finished run, a file of it is damaged, or the backbone is another one.
        """
        return Predictor.of(Finished.open(run_dir), backbone, arithmetic)

    @staticmethod
    def of(run: Finished, backbone: Backbone | None = None, arithmetic: Arithmetic | None = None) -> Predictor:
        """The model of ``run`` on ``backbone``, by default its own; InputError when that is another one now."""
        backbone = backbone or run.load_backbone()
        arithmetic = arithmetic or fastest(backbone.dtype_name, backbone.device.type)
        check_here(arithmetic, backbone.device.type)
        committee = run.committee(backbone, arithmetic)
        if arithmetic == "int8" and not any(is_unpadded(view.model.below, view.encoder) for view in committee.views):
            raise InputError(f"{run.run} has no frozen layers that are multiplied in 8 bits; leave --int8 out.")
        return Predictor(run, backbone, committee, arithmetic)

    def __copy__(self) -> Predictor:
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Predictor:
        return Predictor.of(self.run, self.backbone, self.arithmetic)

    def __reduce__(self) -> tuple[Any, ...]:
        run = self.run
        where = str(run.run.resolve()), str(run.folder.resolve())
        rounded: Arithmetic | None = "int8" if self.arithmetic == "int8" else None
        return _unpickled, (*where, dict(run.files), _home(self), run.columns.model_dump(), rounded)

    def logits(self, texts: Sequence[Text | str]) -> np.ndarray:
        """(N, C) fp32 class logits of a list of texts, or of (text, second text) pairs where the task reads two.

        InputError for what is no list, or for the first item that is no such text, with its index.
        """
        rows = texts_of(texts, is_pair=self.task.is_pair)
        if not rows:
            return np.zeros((0, len(self.labels)), dtype=np.float32)
        return self.committee.logits(rows).numpy()

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
        force: bool = False,
    ) -> int:
        """Writes row, label and ``p_<label>`` for every row of ``source`` to ``out``; returns the row count.

        ``out`` is csv, tsv, jsonl or parquet by its ending. Streams: memory does not grow with the file. A blank
        text is predicted like any other, so rows stay aligned. An ``out`` that is there is replaced where it has the
        columns of an earlier output, or by ``force``; InputError otherwise.
        """
        source = at_home(source)
        rows = read_rows(source, self.columns_of(source, columns), is_pair=self.task.is_pair)
        return write_tables(Path(at_home(out)), source, self._tables(rows, on_rows), (self.shape, BY_TASK), force)

    @property
    def shape(self) -> Shape:
        """The names of the columns that ``predict_file`` writes."""
        return "row", "label", *(f"p_{label}" for label in self.labels)

    def columns_of(self, source: str, columns: str | None = None) -> Columns:
        """The columns to read from ``source``: as given, or those that the run was told of.

        Plain names (``text``) where the file has these alone.
        """
        if columns:
            return parse_columns(columns)
        return columns_that_fit(source, (self.run.columns, Columns()), is_pair=self.task.is_pair)

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


def _home(predictor: Predictor) -> Home:
    """What leads back to its backbone: the rules of its run where they do, what it is where it was given otherwise."""
    backbone, card = predictor.backbone, predictor.run.trained_on
    device, precision = card["device"], card["precision"]
    if resolve_device(device).split(":")[0] != backbone.device.type:
        device = backbone.device.type
    is_now: Precision = "bf16" if backbone.dtype_name == "bfloat16" else "fp32"
    if resolve_precision(precision, backbone.device.type) != is_now:
        precision = is_now
    return absolute_backbone(backbone.name), precision, device


# Models that are unpickled share a backbone while one of them is in use.
_SHARED: WeakValueDictionary[tuple[str, ...], Backbone] = WeakValueDictionary()


def _unpickled(
    run: str, folder: str, files: Files, home: Home, columns: dict[str, str], arithmetic: Arithmetic | None
) -> Predictor:
    """The ``Predictor`` again; InputError where its files are damaged, or its backbone is another one here."""
    if not are_whole(files, Path(folder)):
        raise InputError(f"the pickled model of {run} is damaged; open the run and pickle it again.")
    found = Finished.of(Path(run), Path(folder), files, Columns.model_validate(columns))
    name, precision, device = home
    whole = Identity.of(found.trained_on)
    key, rest = ((*home, each.model_dump_json()) for each in (whole, whole.model_copy(update={"text": ""})))
    backbone = _SHARED.get(key)
    if backbone is None and (backbone := _SHARED.get(rest)):
        found.check_text(backbone)  # it came with a model that does not read it
    backbone = backbone or found.load_backbone(precision, device, name)
    _SHARED[key] = _SHARED[rest] = backbone
    return Predictor.of(found, backbone, arithmetic)
