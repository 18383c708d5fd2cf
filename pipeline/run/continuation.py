"""The finished run that another one goes on from, and the rows that persons labelled in its reviews.

RUN/inputs/reviewed.json holds those that a run was given; it hands them on with its own.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from listflow.data.errors import InputError, NothingNew
from listflow.data.inputs import POOL_FILE
from listflow.data.pool import Pool
from listflow.data.rows import Row
from listflow.pipeline.backbone.backbone import absolute_backbone
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.storage.checkpoint import FORMAT, load_tensors, read_json, verified, write_json
from listflow.pipeline.storage.review import read_reviewed
from listflow.pipeline.storage.run_folder import EVIDENCE, WEIGHTS, RunFolder

LOOKED_AT = 1000


@dataclass(frozen=True)
class Parent:
    """``model`` is the folder of its last promoted model, ``weights`` their sha256.

    ``last_rows``: the highest row number that it had of every corpus. ``reviewed``: rows that persons labelled in
    it and in the runs before it.
    """

    folder: Path
    model: Path
    weights: str
    labels: tuple[str, ...]
    digests: dict[str, str]
    config: dict[str, Any]
    offset: list[float] | None
    last_rows: dict[str, int]
    reviewed: tuple[Row, ...] = ()

    @staticmethod
    def open(folder: Path) -> Parent:
        """The run in ``folder``; InputError when it is not finished, or a file of it is damaged."""
        files = RunFolder(folder)
        final = verified(files.final)
        model = files.round(0 if final is None else final["round"]).model
        kept, first = verified(model), verified(files.round(0).model)
        if final is None or kept is None or first is None:
            raise InputError(f"{folder} is no finished run to continue; finish it with `listflow resume {folder}`.")
        inputs, config = read_json(files.inputs), read_json(files.config)["config"]
        pool = Pool(files.kept_inputs / POOL_FILE)
        return Parent(
            folder, model, kept["files"][WEIGHTS], tuple(inputs["task"]["labels"]), inputs["digests"], config,
            first["offset"], _last_rows(pool), reviewed_rows(folder, config["rounds"]["count"], pool),
        )  # fmt: skip

    def unfitted(self, config: RunConfig, labelled: str, rows: int) -> Tensor | None:
        """(K, C) logits of the labelled rows before the model was fitted to them; None for other labelled rows."""
        kept = load_tensors(self.model / EVIDENCE).get("labelled")
        ours = config.data.model_dump(mode="json", include={"columns", "shots", "balanced"})
        drawn_alike = all(self.config["data"][key] == value for key, value in ours.items())
        same = drawn_alike and config.seed == self.config["seed"] and labelled == self.digests["labelled"]
        return kept if same and kept is not None and len(kept) == rows else None

    def knowing(self, pool: Pool) -> Parent:
        """Itself, without the sources whose rows in ``pool`` are other ones: another file under an old name."""
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
        for part in ("stage", "head"):
            if ours[part] != self.config[part]:
                raise InputError(f"{self.folder} has another {part} than this run; leave it as it was, or start anew.")
        if ours["backbone"]["name"] != absolute_backbone(self.config["backbone"]["name"]):
            raise InputError(
                f"{self.folder} was trained on backbone '{self.config['backbone']['name']}', not on "
                f"'{ours['backbone']['name']}'; leave it as it was, or start anew."
            )
        texts = {role: value for role, value in self.digests.items() if role.startswith("unlabelled/")}
        if texts == {role: value for role, value in digests.items() if role.startswith("unlabelled/")}:
            raise nothing_new(self.folder)


def pinned_parent(config: RunConfig) -> tuple[RunConfig, Parent | None]:
    """(``config`` held to the model that it goes on from, that run); InputError when that model has changed since."""
    if not config.continues:
        return config, None
    parent = Parent.open(Path(config.continues).expanduser().resolve())
    if config.continues_model not in {"", parent.weights}:
        raise InputError(
            f"{parent.folder} holds another model than the one this run was started from; restore it, or start anew."
        )
    return config.model_copy(update={"continues": str(parent.folder), "continues_model": parent.weights}), parent


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


def _last_rows(pool: Pool) -> dict[str, int]:
    return {name: _number(pool, span[-1]) for name, span in pool.spans().items()}
