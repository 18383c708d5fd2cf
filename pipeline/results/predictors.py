"""Prediction from several finished runs at once: one backbone in memory, and the small files of every run.

Their text views read every text once together: nothing of the text face is any run's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from listflow.data.errors import InputError, did_you_mean
from listflow.data.files import at_home
from listflow.data.rows import Row, read_rows
from listflow.data.task import Columns
from listflow.data.values import listed, texts_of
from listflow.pipeline.backbone.prompt import Text
from listflow.pipeline.backbone.text_face import SharedFace, TextFace
from listflow.pipeline.model.arithmetic import Arithmetic
from listflow.pipeline.results.finished import Finished
from listflow.pipeline.results.predictor import BY_TASK, ROWS_AT_ONCE, Predictor
from listflow.pipeline.results.tables import Shape, write_tables

Rows = dict[str, list[Row]]


@dataclass(frozen=True)
class Predictors:
    """Classifiers by name, all on one backbone; a name is its task's, or its run folder's where tasks repeat.

    They can be pickled, as each of them can, and share one backbone where they arrive.
    """

    by_name: Mapping[str, Predictor]

    @staticmethod
    def open(run_dirs: Sequence[str | Path], arithmetic: Arithmetic | None = None) -> Predictors:
        """The final models of runs that were trained on the same backbone, which is loaded once.

        InputError as for ``Predictor.open``, for runs of different backbones, and for two runs with one name.
        """
        runs = [Finished.open(run) for run in run_dirs]
        if not runs:
            raise InputError("no run is given; name at least one.")
        names = _names(runs)
        whole = next((run for run in runs if run.reads_text), runs[0])
        for run in runs:
            _check_backbone(whole, run)
        backbone = whole.load_backbone()
        return Predictors.of(
            {name: Predictor.of(run, backbone, arithmetic) for name, run in zip(names, runs, strict=True)}
        )

    @staticmethod
    def of(by_name: Mapping[str, Predictor]) -> Predictors:
        """Classifiers that are open already; those on one backbone read a text's embedding once for all of them."""
        faces: dict[tuple[int, int, bool], SharedFace] = {}
        return Predictors({name: _sharing(predictor, faces) for name, predictor in by_name.items()})

    def __reduce__(self) -> tuple[Any, ...]:
        return Predictors.of, (dict(self.by_name),)

    def __getitem__(self, name: str) -> Predictor:
        """The classifier of that name; KeyError where there is none."""
        return self.by_name[name]

    @property
    def names(self) -> list[str]:
        """The names of all classifiers, in the order of the runs."""
        return list(self.by_name)

    @property
    def unknown(self) -> float:
        """The largest share of unknown tokens that any of them has met; they may read other columns."""
        return max(predictor.unknown for predictor in self.by_name.values())

    def predict(self, texts: Sequence[Text | str]) -> dict[str, list[str]]:
        """The labels of a list of texts by every classifier, which all read one text, or all two.

        InputError as for ``Predictor.logits``, with the name of the classifier.
        """
        texts = listed(texts)
        for name, predictor in self.by_name.items():
            try:
                texts_of(texts, is_pair=predictor.task.is_pair)
            except InputError as error:
                raise InputError(f"'{name}': {error}") from error
        return {name: predictor.predict(texts) for name, predictor in self.by_name.items()}

    def notices(self, source: str, columns: str | None = None) -> list[str]:
        """A sentence for each classifier that reads other columns of ``source`` than its run was told of."""
        found = {n: (p.run.columns, p.columns_of(source, columns)) for n, p in self.by_name.items() if not columns}
        return [
            f"{source} has no column {was!r}, which '{name}' was trained on; {now!r} is read."
            for name, both in found.items()
            for (key, was), (_, now) in zip(*both, strict=True)
            if was != now and key in (("text_a", "text_b") if self[name].task.is_pair else ("text",))
        ]

    def predict_file(
        self,
        source: str,
        out: str | Path,
        columns: str | None = None,
        on_rows: Callable[[int], None] = lambda rows: None,
        force: bool = False,
    ) -> int:
        """Writes row, and ``<name>.label`` and ``<name>.p_<label>`` by every classifier; returns the row count.

        A single classifier writes what ``Predictor.predict_file`` does. Streams, and replaces what is there, as that
        does.
        """
        if len(self.by_name) == 1:
            return next(iter(self.by_name.values())).predict_file(source, out, columns, on_rows, force)
        source = at_home(source)
        tables = self._side_by_side(self._chunks(source, columns, None), on_rows)
        return write_tables(Path(at_home(out)), source, tables, self._shapes(), force)

    def predict_file_by_task(
        self,
        source: str,
        out: str | Path,
        task_column: str,
        columns: str | None = None,
        on_rows: Callable[[int], None] = lambda rows: None,
        force: bool = False,
    ) -> int:
        """Writes row, task, label and confidence, by the classifier that ``task_column`` names; returns the row count.

        InputError for a row that names no classifier of this set. Streams, and replaces what is there, as
        ``Predictor.predict_file`` does.
        """
        source = at_home(source)
        tables = self._each_by_its_own(self._chunks(source, columns, task_column), source, on_rows)
        return write_tables(Path(at_home(out)), source, tables, self._shapes(), force)

    def _shapes(self) -> set[Shape]:
        """The columns of what these classifiers write, alone, side by side, or each for its rows."""
        several = [f"{name}.{column}" for name, one in self.by_name.items() for column in one.shape[1:]]
        return {("row", *several), BY_TASK, *(one.shape for one in self.by_name.values())}

    def _chunks(self, source: str, columns: str | None, task_column: str | None) -> Iterator[Rows]:
        """The next rows of the file as every classifier reads them: tasks may have columns of their own."""
        shapes = {n: (p.columns_of(source, columns), p.task.is_pair) for n, p in self.by_name.items()}
        streams = {shape: _read(source, *shape, task_column) for shape in set(shapes.values())}
        while True:
            read = {shape: list(islice(stream, ROWS_AT_ONCE)) for shape, stream in streams.items()}
            if not all(read.values()):
                return
            yield {name: read[shape] for name, shape in shapes.items()}

    def _side_by_side(self, chunks: Iterator[Rows], on_rows: Callable[[int], None]) -> Iterator[pa.Table]:
        for chunk in chunks:
            numbers = [row.number for row in chunk[self.names[0]]]
            columns: dict[str, object] = {"row": numbers}
            for name, predictor in self.by_name.items():
                columns |= {f"{name}.{column}": values for column, values in predictor.columns(chunk[name]).items()}
            on_rows(len(numbers))
            yield pa.table(columns)

    def _each_by_its_own(
        self, chunks: Iterator[Rows], source: str, on_rows: Callable[[int], None]
    ) -> Iterator[pa.Table]:
        for chunk in chunks:
            rows = chunk[self.names[0]]
            tasks = [self._known(row, source) for row in rows]
            labels, confidence = [""] * len(rows), np.zeros(len(rows), dtype=np.float32)
            for name in dict.fromkeys(tasks):
                mine = [place for place, task in enumerate(tasks) if task == name]
                soft = self[name].probabilities([(chunk[name][i].text, chunk[name][i].pair) for i in mine])
                confidence[mine] = soft.max(1)
                for place, best in zip(mine, soft.argmax(1), strict=True):
                    labels[place] = self[name].labels[best]
            on_rows(len(rows))
            numbers = [row.number for row in rows]
            yield pa.table(dict(zip(BY_TASK, (numbers, tasks, labels, confidence), strict=True)))

    def _known(self, row: Row, source: str) -> str:
        task = row.task or ""
        if task not in self.by_name:
            hint, known = did_you_mean(task, self.by_name), ", ".join(self.names)
            raise InputError(f"{source}, row {row.number}: unknown task {task!r}{hint}; the runs are {known}.")
        return task


def _read(source: str, columns: Columns, is_pair: bool, task_column: str | None) -> Iterator[Row]:
    return read_rows(source, columns, is_pair=is_pair, task_column=task_column)


def _sharing(predictor: Predictor, faces: dict[tuple[int, int, bool], SharedFace]) -> Predictor:
    """The same predictor with a text face of ``faces``, which gets its own where it has no such one yet."""
    views = []
    for view in predictor.committee.views:
        face = view.encoder
        if isinstance(face, TextFace):
            face = faces.setdefault((id(face.encoder), face.max_length, face.middle), SharedFace(face))
        views.append(replace(view, encoder=face))
    return replace(predictor, committee=replace(predictor.committee, views=tuple(views)))


def _names(runs: Sequence[Finished]) -> list[str]:
    """A name for each run; InputError where neither tasks nor folders tell them apart."""
    tasks = Counter(run.task.name for run in runs)
    names = [run.task.name if tasks[run.task.name] == 1 else run.name for run in runs]
    for name, count in Counter(names).items():
        if count > 1:
            first, second, *_ = (run.run for run, its in zip(runs, names, strict=True) if its == name)
            raise InputError(f"{first} and {second} would both be called '{name}'; rename the folder of one.")
    return names


def _check_backbone(first: Finished, other: Finished) -> None:
    a, b = first.trained_on, other.trained_on
    other_text = a.get("text") and b.get("text") and a["text"] != b["text"]
    if other_text or any(a[key] != b[key] for key in ("name", "dtype", "checksum")):
        said = [f"{run.run} ({run.trained_on['name']}, {run.trained_on['dtype']})" for run in (first, other)]
        raise InputError(
            f"{said[0]} and {said[1]} were trained on different backbones; predict with each of them alone."
        )
