"""A finished run, opened: its ``final`` folder is all that it needs besides the backbone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa
from safetensors.torch import load

from listflow.data.errors import InputError
from listflow.data.rows import Row, read_rows
from listflow.data.task import Task, parse_columns
from listflow.pipeline.backbone.backbone import (
    Backbone,
    Identity,
    Precision,
    absolute_backbone,
    load_backbone,
    resolve_device,
    resolve_precision,
)
from listflow.pipeline.backbone.prompt import Prompt, Text
from listflow.pipeline.model.classifier import Classifier, logits_of
from listflow.pipeline.model.config import AnyHead
from listflow.pipeline.model.verbalizer import word_ids_for
from listflow.pipeline.results.tables import write_tables
from listflow.pipeline.run.config import build_config
from listflow.pipeline.stages.config import AnyStage
from listflow.pipeline.stages.presets import pseudo_tokens
from listflow.pipeline.storage.checkpoint import MANIFEST, json_of, undisturbed, verified
from listflow.pipeline.storage.run_folder import CARD, WEIGHTS, RunFolder

ROWS_AT_ONCE = 4096

Files = Mapping[str, bytes]
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
    model: Classifier
    prompt: Prompt

    @property
    def task(self) -> Task:
        """What the labels mean, and what the texts are put into."""
        return self.run.task

    @property
    def labels(self) -> list[str]:
        """In the order of the probability columns."""
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
        return Predictor(run, backbone, run.classifier(backbone), run.prompt(backbone))

    def __copy__(self) -> Predictor:
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Predictor:
        return Predictor.of(self.run, self.backbone)

    def __reduce__(self) -> tuple[Any, ...]:
        run = self.run
        return _unpickled, (str(run.run.resolve()), str(run.folder.resolve()), dict(run.files), _home(self))

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


@dataclass(frozen=True)
class Finished:
    """The final model of a run. ``run`` is the folder that was asked for, ``trained_on`` the card of its backbone.

    ``files`` are the bytes of its weights, its card and its manifest, which say all of it.
    """

    run: Path
    folder: Path
    task: Task
    stage: tuple[AnyStage, ...]
    head: AnyHead
    max_length: int
    trained_on: dict[str, Any]
    files: Files = field(repr=False)

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
        if verified(folder) is None or not _are_whole(files := _files(folder), folder):
            raise InputError(f"a file in {folder} is damaged or changed; make it again with `listflow resume RUN`.")
        return Finished.of(run, folder, files)

    @staticmethod
    def of(run: Path, folder: Path, files: Files) -> Finished:
        """The final model of ``run`` that ``folder`` held as ``files``."""
        card = json_of(folder / CARD, files[CARD])
        config = build_config("fast", {"stage": card["stage"], "head": card["head"]})
        task = Task.model_validate(card["task"])
        return Finished(run, folder, task, config.stage, config.head, card["max_length"], card["backbone"], files)

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        whole = self.run.resolve()
        return whole.parent.name if whole.name == RunFolder(whole.parent).final.name else whole.name

    def digest(self) -> str:
        """sha256 over the model: its weights, its task, and the checksum of the backbone that it needs."""
        files = (hashlib.sha256(self.files[name]).hexdigest() for name in (WEIGHTS, CARD))
        return hashlib.sha256("".join(files).encode()).hexdigest()

    def load_backbone(
        self, precision: Precision | None = None, device: str | None = None, name: str | None = None
    ) -> Backbone:
        """The backbone that the run was trained on, as it was or as asked; InputError when it is another one now."""
        card = self.trained_on
        name = name or str(card["name"])
        backbone = load_backbone(name, precision or card["precision"], device or card["device"])
        if not backbone.identity().is_of(Identity.of(card)):
            raise InputError(f"backbone '{name}' is not the one this model was trained on; restore that version.")
        return backbone

    def classifier(self, backbone: Backbone) -> Classifier:
        """The trained classifier, on ``backbone``."""
        model = Classifier(backbone, self.stage, self.head, self.word_ids(backbone))
        with undisturbed():
            tensors = load(self.files[WEIGHTS])
        model.load(tensors)
        return model

    def prompt(self, backbone: Backbone) -> Prompt:
        """What turns texts into the classifier's input."""
        return Prompt(self.task, backbone.tokenizer, self.max_length, pseudo_tokens(self.stage))

    def word_ids(self, backbone: Backbone) -> tuple[tuple[int, ...], ...]:
        """The token ids of each label's word, in label order; see ``word_ids_for``."""
        return word_ids_for(self.head, self.task, backbone)


def _files(folder: Path) -> Files:
    """What ``Finished`` keeps of ``folder``; nothing where a file has gone meanwhile."""
    try:
        return {name: (folder / name).read_bytes() for name in (WEIGHTS, CARD, MANIFEST)}
    except OSError:
        return {}


def _are_whole(files: Files, folder: Path) -> bool:
    """Whether all are there, and are what the manifest among them says, as ``verified`` asks of a folder."""
    if files.keys() != {WEIGHTS, CARD, MANIFEST}:
        return False
    digests = json_of(folder / MANIFEST, files[MANIFEST])["files"]
    return all(hashlib.sha256(files[name]).hexdigest() == digests[name] for name in files.keys() & digests.keys())


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


def _unpickled(run: str, folder: str, files: Files, home: Home) -> Predictor:
    """The ``Predictor`` again; InputError where its files are damaged, or its backbone is another one here."""
    if not _are_whole(files, Path(folder)):
        raise InputError(f"the pickled model of {run} is damaged; open the run and pickle it again.")
    found = Finished.of(Path(run), Path(folder), files)
    name, precision, device = home
    key = (*home, Identity.of(found.trained_on).model_dump_json())
    backbone = _SHARED.get(key) or found.load_backbone(precision, device, name)
    _SHARED[key] = backbone
    return Predictor.of(found, backbone)


def _why_none(run: Path) -> str:
    """Why there is no model in ``run``, and what to do."""
    if not run.is_dir():
        return f"there is no folder {run}; give that of a finished run."
    if not RunFolder(run).config.exists():
        return f"{run} is no run and holds no finished model; give the folder of a finished run."
    return f"{run} holds no finished model; finish the run with `listflow resume {run}`."
