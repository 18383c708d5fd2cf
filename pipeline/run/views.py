"""The views of a run: which it has, and the text face of all its texts, computed once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import transformers

from listflow.data.errors import InputError
from listflow.data.task import Task
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Encoded
from listflow.pipeline.backbone.sentences import CarriedTexts, Texts, with_vectors
from listflow.pipeline.backbone.text_face import TextFace, text_face_of
from listflow.pipeline.model.config import PrototypesHead, VerbalizerHead, reads_middle
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.run import Run, counter
from listflow.pipeline.storage.run_folder import SECOND, RunFolder


def suited(config: RunConfig, backbone: Backbone, task: Task) -> RunConfig:
    """``config`` with the views that ``backbone`` has, and the sizes of their features.

    Without a masked-LM head the prompt of a committee says nothing: the text view stays alone.
    """
    if config.second is not None and not backbone.has_head and isinstance(config.head, VerbalizerHead):
        config = config.text_alone()
    if config.face == "text" and task.is_pair and not isinstance(config.head, PrototypesHead):
        raise InputError(f"face text reads pairs with head prototypes alone, not {config.head.kind}; choose that head.")
    if config.face == "text" and isinstance(config.head, PrototypesHead):
        return config.model_copy(update={"head": _of_width(config.head, backbone, task)})
    if config.second is not None:
        head = _of_width(config.second.head, backbone, task)
        return config.model_copy(update={"second": config.second.model_copy(update={"head": head})})
    return config


def with_views(run: Run) -> Run:
    """The run with its text view, where it has one, and the vectors of all texts at hand."""
    first, *others = unread(run)
    if run.config.face == "text":
        return _read(first)
    return replace(first, others=tuple(map(_read, others)))


def unread(run: Run) -> tuple[Run, ...]:
    """The run as each of its views sees it, before any text has met the text face."""
    if run.config.second is None:
        return (run,)
    unread_words = ((),) * len(run.labels)
    return run, replace(run, config=run.config.text_alone(), suffix=SECOND, word_ids=unread_words, sampled=None)


def glimpse(run: Run, rows: np.ndarray) -> Run:
    """The text view ``run`` with some rows of its pool, read here and now and kept nowhere."""
    face = _face_of(run)
    labelled = face.encode([(row.text, row.pair) for row in run.inputs.labelled])
    return replace(
        run, face=face, labelled=labelled, corpus=face.encode(run.inputs.pool.texts(rows.tolist())), test=None
    )


def _of_width(head: PrototypesHead, backbone: Backbone, task: Task) -> PrototypesHead:
    """``head`` with the size of what the text face makes of a row of ``task``."""
    hidden = backbone.hidden_size
    width = 1 + 3 * hidden if task.is_pair else 2 * hidden if head.middle else hidden
    return head.model_copy(update={"width": width, "normalised": not task.is_pair})


def _face_of(run: Run) -> TextFace:
    return text_face_of(run.backbone, run.config.backbone.max_length, reads_middle(run.config.head))


def _read(run: Run) -> Run:
    """The run as its text view sees it."""
    face = _face_of(run)
    given: dict[str, Texts] = {
        "labelled": [(row.text, row.pair) for row in run.inputs.labelled],
        "corpus": run.inputs.pool,
        "test": [(row.text, row.pair) for row in run.inputs.test],
    }
    kept = {name: _kept(run, face, name, texts) for name, texts in given.items() if len(texts)}
    return replace(run, face=face, labelled=kept["labelled"], corpus=kept["corpus"], test=kept.get("test"))


def _kept(run: Run, face: TextFace, name: str, texts: Texts) -> Encoded:
    earlier = () if run.parent is None else (RunFolder(run.parent.folder).vectors / name,)
    made_by = f"{face.checksum()} {face.max_length} {run.backbone.dtype_name} {run.backbone.device.type}"
    made_by = f"{made_by} {torch.__version__} {transformers.__version__} {torch.get_num_threads()}"
    on_rows = counter(run.notify, 0, "embed", len(texts))
    folder = run.files.vectors / name
    return with_vectors(
        texts, face, run.inputs.task.is_pair, folder, made_by, on_rows, earlier,
        lambda: _carried(run) if name == "corpus" else None,
    )  # fmt: skip


def _carried(run: Run) -> CarriedTexts | None:
    """What the run before has of the texts of the pool."""
    places = None if run.parent is None else run.parent.places_of(run.inputs.built)
    if places is None or run.parent is None or run.parent.before is None:
        return None
    return CarriedTexts(places, run.parent.before.built.pool, RunFolder(run.parent.folder).vectors / "corpus")
