"""The finished run that another one goes on from, and the rows that persons labelled in its reviews.

RUN/inputs/reviewed.json holds those that a run was given; it hands them on with its own. Of a run of two views those
go on that had a say in it: a view without one has no model of a round, and is not computed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from listflow.data.errors import InputError, NothingNew
from listflow.data.pool import Before, BuiltPool, Pool
from listflow.data.pools.record import POOL_FILE, RECORD_FILE, before_of
from listflow.data.rows import Row
from listflow.pipeline.backbone.backbone import absolute_backbone
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.storage.checkpoint import FORMAT, load_tensors, read_json, verified, write_json
from listflow.pipeline.storage.review import read_reviewed
from listflow.pipeline.storage.run_folder import EVIDENCE, MIXTURE, SECOND, WEIGHTS, RunFolder

LOOKED_AT = 1000
FILLED_IN = ("width", "normalised")  # of label vectors, from the backbone: what is asked need not name them


@dataclass(frozen=True)
class LastModel:
    """The folder ``model`` of a view's last promoted model, the sha256 of its weights, and the folder of its teacher.

    ``temperature`` is that of its logits where the view is one of two.
    """

    view: str
    model: Path
    first: Path
    weights: str
    offset: list[float] | None
    temperature: float = 1.0

    @property
    def is_student(self) -> bool:
        """Whether a student took the first teacher's place."""
        return self.model != self.first


@dataclass(frozen=True)
class Parent:
    """``models`` are the last promoted ones of the views that go on, ``weights`` the sha256 that names them.

    ``before`` is what it had of its unlabelled sources, None where a version before it did not write that down.
    ``config`` is that of these views; ``silent`` the view of a run of two that had no say. ``voices`` say how far each
    of two was believed. ``last_rows``: the highest row number that it had of every corpus. ``reviewed``: rows that
    persons labelled in it and in the runs before it.
    """

    folder: Path
    models: tuple[LastModel, ...]
    weights: str
    labels: tuple[str, ...]
    digests: dict[str, str]
    config: dict[str, Any]
    last_rows: dict[str, int]
    reviewed: tuple[Row, ...] = ()
    silent: str = ""
    voices: tuple[dict[str, Any], ...] = ()
    decided_by: str = ""
    before: Before | None = None

    @staticmethod
    def open(folder: Path) -> Parent:
        """The run in ``folder``; InputError when it is not finished, or a file of it is damaged."""
        files = RunFolder(folder)
        final = verified(files.final)
        if final is None:
            raise _unfinished(folder)
        inputs, config = read_json(files.inputs), read_json(files.config)["config"]
        mixture, digests = _mixture(files) if config.get("second") else ({}, [])
        voices = {voice["view"]: voice for voice in mixture.get("voices", ())}
        heard = [view for view, voice in voices.items() if voice["weight"] > 0] or [_face(config)]
        models = tuple(_last_model(files, view, final["round"], voices) for view in heard)
        digests = [model.weights for model in models] + (digests if len(models) > 1 else [])
        pool = Pool(files.kept_inputs / POOL_FILE)
        before = before_of(files.kept_inputs, inputs["digests"])
        if before is None and inputs.get("rows", {}).get("unlabelled", 0) > len(pool):
            raise InputError(
                f"{files.kept_inputs / RECORD_FILE} is damaged or missing, and which rows {folder} had is not known "
                "without it; restore it from a copy, or start anew."
            )
        return Parent(
            folder, models, digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest(),
            tuple(inputs["task"]["labels"]), inputs["digests"], _as_heard(config, heard), _last_rows(pool, before),
            reviewed_rows(folder, config["rounds"]["count"], pool), "".join(voices.keys() - set(heard)),
            tuple(voices.values()) if len(models) > 1 else (), mixture.get("decided_by", ""), before,
        )  # fmt: skip

    def model_of(self, view: str) -> LastModel:
        """That of a view that goes on."""
        return next(model for model in self.models if model.view == view)

    def followed_by(self, config: RunConfig) -> RunConfig:
        """``config`` without the view that had no say."""
        if not self.silent or config.second is None:
            return config
        return config.text_alone() if self.silent == config.face else config.model_copy(update={"second": None})

    def has_labels_of(self, config: RunConfig, digests: dict[str, str]) -> bool:
        """Whether its labelled rows are those of a run of ``config`` on files of ``digests``."""
        names = ("labelled", "reviewed")
        return self._drew_as(config) and all(self.digests.get(name) == digests.get(name) for name in names)

    def unfitted(self, config: RunConfig, labelled: str, rows: int, view: str) -> Tensor | None:
        """(K, C) logits of the labelled rows before a view's model was fitted to them; None for other labelled rows."""
        kept = load_tensors(self.model_of(view).model / EVIDENCE).get("labelled")
        same = self._drew_as(config) and labelled == self.digests["labelled"]
        return kept if same and kept is not None and len(kept) == rows else None

    def places_of(self, built: BuiltPool) -> np.ndarray | None:
        """The place in its own pool of each row of a pool, -1 for a new row; None where that is no sample of its rows.

        Of the old rows of such a sample all are from there.
        """
        if self.before is None or built.known is None:
            return None
        ours, pool, places = self.before.built.pool, built.pool, np.full(len(built.pool), -1)
        spans = ours.spans()
        for name, span in pool.spans().items():
            old = span[: pool.upto(span, built.known.get(name, 0))]
            if old:
                places[old.start : old.stop] = ours.find(spans[name], pool.numbers[old.start : old.stop])
        return places

    def knowing(self, built: BuiltPool) -> Parent:
        """Itself, without the sources whose rows in a pool are other ones: another file under an old name."""
        if built.known is not None:
            return replace(self, last_rows=built.known)
        pool = built.pool
        before, spans = Pool(RunFolder(self.folder).kept_inputs / POOL_FILE), pool.spans()
        old = {name: span for name, span in before.spans().items() if name in spans}
        same = {name for name, span in old.items() if not _differ(before, span, pool, spans[name])}
        return replace(self, last_rows={name: last for name, last in self.last_rows.items() if name in same})

    def check(self, config: RunConfig, labels: list[str], digests: dict[str, str]) -> None:
        """InputError where ``config`` asks for what its model cannot go on as; NothingNew for the same text."""
        if tuple(labels) != self.labels:
            raise InputError(
                f"{self.folder} has the labels {', '.join(self.labels)} and this task {', '.join(labels)}; a run goes "
                "on with the same labels in the same order."
            )
        ours = config.model_dump(mode="json")
        if _views(ours) != _views(self.config):
            raise InputError(
                f"{self.folder} goes on as {_views(self.config)}, and this run is {_views(ours)}; leave face and "
                "second as they were, or start anew."
            )
        for part in ("stage", "head", "second.head"):
            if _part(ours, part) != _part(self.config, part):
                raise InputError(f"{self.folder} has another {part} than this run; leave it as it was, or start anew.")
        if ours["backbone"]["name"] != absolute_backbone(self.config["backbone"]["name"]):
            raise InputError(
                f"{self.folder} was trained on backbone '{self.config['backbone']['name']}', not on "
                f"'{ours['backbone']['name']}'; leave it as it was, or start anew."
            )
        texts = {role: value for role, value in self.digests.items() if role.startswith("unlabelled/")}
        if texts == {role: value for role, value in digests.items() if role.startswith("unlabelled/")}:
            raise nothing_new(self.folder)

    def _drew_as(self, config: RunConfig) -> bool:
        """Whether its labelled rows were drawn from their file as ``config`` asks."""
        ours = config.data.model_dump(mode="json", include={"columns", "shots", "balanced"})
        return config.seed == self.config["seed"] and all(self.config["data"][key] == ours[key] for key in ours)


def pinned_parent(config: RunConfig) -> tuple[RunConfig, Parent | None]:
    """(``config`` held to the model that it goes on from, that run); InputError when that model has changed since."""
    if not config.continues:
        return config, None
    parent = Parent.open(Path(config.continues).expanduser().resolve())
    if config.continues_model not in {"", parent.weights}:
        raise InputError(
            f"{parent.folder} holds another model than the one this run was started from; restore it, or start anew."
        )
    own = {"continues": str(parent.folder), "continues_model": parent.weights}
    return parent.followed_by(config).model_copy(update=own), parent


def nothing_new(folder: Path) -> NothingNew:
    """What to raise where a run could go on, but has no new rows."""
    return NothingNew(f"no unlabelled row is new since {folder}; ingest some, or pass another file to --unlabelled.")


def reviewed_rows(run: Path, rounds: int, pool: Pool) -> tuple[Row, ...]:
    """What was labelled in reviews before the run in ``run`` and in its own ``rounds``, in that order."""
    path = RunFolder(run).reviewed
    texts = [(row["text"], row["pair"], row["label"]) for row in read_json(path)["rows"]] if path.exists() else []
    for number in range(1, rounds + 1):
        ended = read_reviewed(run, number)
        said = ended.rows if ended else ()
        of_rows = pool.texts([correction.row for correction in said])
        texts += [(*text, correction.label) for text, correction in zip(of_rows, said, strict=True)]
    return tuple(Row(*text, number) for number, text in enumerate(texts, 1))


def keep_rows(run: Path, rows: tuple[Row, ...]) -> None:
    """Keeps what the run in ``run`` was given, where that is something."""
    if rows:
        stored = [{"text": row.text, "pair": row.pair, "label": row.label} for row in rows]
        write_json(RunFolder(run).reviewed, {"format": FORMAT, "rows": stored})


def digest_of(rows: tuple[Row, ...]) -> dict[str, str]:
    """The sha256 of the rows as a run's inputs record it; nothing where there are none."""
    told = json.dumps([(row.text, row.pair, row.label) for row in rows])
    return {"reviewed": hashlib.sha256(told.encode()).hexdigest()} if rows else {}


def _unfinished(folder: Path) -> InputError:
    return InputError(f"{folder} is no finished run to continue; finish it with `listflow resume {folder}`.")


def _mixture(files: RunFolder) -> tuple[dict[str, Any], list[str]]:
    """(how far each of two views was believed, the sha256 of that)."""
    folder = files.round(0).committee
    manifest = verified(folder)
    if manifest is None:
        raise _unfinished(files.path)
    return read_json(folder / MIXTURE), [manifest["files"][MIXTURE]]


def _last_model(files: RunFolder, view: str, number: int, voices: dict[str, dict[str, Any]]) -> LastModel:
    """That of ``view`` in the run of ``files``, whose last promoted round is ``number``."""
    suffix = SECOND if voices and view == "text" else ""
    model, first = (files.round(n, suffix).model for n in (number, 0))
    kept, begun = verified(model), verified(first)
    if kept is None or begun is None:
        raise _unfinished(files.path)
    # Students of all views are of one scale: see Mixture.temperatures.
    temperature = 1.0 if number or not voices else voices[view]["temperature"]
    return LastModel(view, model, first, kept["files"][WEIGHTS], begun["offset"], temperature)


def _as_heard(config: dict[str, Any], heard: list[str]) -> dict[str, Any]:
    """``config`` of a run without the view that had no say."""
    if not config.get("second") or len(heard) > 1:
        return config
    if heard == [_face(config)]:
        return {**config, "second": None}
    return RunConfig.model_validate(config).text_alone().model_dump(mode="json")


def _face(config: dict[str, Any]) -> str:
    return str(config.get("face", "prompt"))  # runs of earlier versions had no other


def _views(config: dict[str, Any]) -> str:
    """What a run of ``config`` is, in words."""
    return "a committee of two views" if config.get("second") else f"the {_face(config)} view alone"


def _part(config: dict[str, Any], path: str) -> Any:
    """The stage, or a head, of ``config``, but for what is filled in; None where there is none."""
    section, _, name = path.rpartition(".")
    value = (config.get(section) or {}).get(name) if section else config[name]
    if not isinstance(value, dict) or value.get("kind") != "prototypes":
        return value
    return {key: own for key, own in value.items() if key not in FILLED_IN}


def _differ(old: Pool, old_span: range, new: Pool, new_span: range) -> bool:
    """Whether rows of one number have different texts, in up to ``LOOKED_AT`` rows from all over the source."""
    for index in old_span[:: 1 + len(old_span) // LOOKED_AT]:
        row = _number(old, index)
        place = new.upto(new_span, row) - 1
        if place < 0 or _number(new, new_span[place]) != row:
            continue  # left out here, as one that has a label now
        if old.texts([index]) != new.texts([new_span[place]]):
            return True
    return False


def _number(pool: Pool, index: int) -> int:
    return int(pool.row_ids([index])[0].rpartition(":")[2])


def _last_rows(pool: Pool, before: Before | None) -> dict[str, int]:
    if before is not None and before.built.is_sample:
        return {name: counted.last for name, counted in before.built.sources.items()}
    return {name: _number(pool, span[-1]) for name, span in pool.spans().items()}
