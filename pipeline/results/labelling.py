"""A whole corpus labelled by a finished run: what it is made of, what of it is done, what is left.

OUT/000001.parquet ...    row_id, label, confidence, p_<label>: a file for every shard of the corpus, one table together
OUT/_labelling.json       what it is made of
OUT/_shards/000001.json   what each file is, written after the file; only with it a shard counts as done
OUT/.driver               who gives out the work now: its workers, wherever they are, go on while its id stands there

Whoever reads OUT as a Parquet data set passes over names that begin with an underscore. The folder alone says what is
done, so that workers on any machine need to tell nobody, and whoever starts again begins with what is left.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from listflow.data.errors import InputError
from listflow.data.files import file_digest, replacing_shared, storing
from listflow.data.shards import Manifest, Shard, is_corpus, read_manifest
from listflow.pipeline.backbone.backbone import resolve_device
from listflow.pipeline.model.arithmetic import Arithmetic, check_here, fastest
from listflow.pipeline.results.finished import Finished

FORMAT = 1
ARITHMETIC: TypeAdapter[Arithmetic] = TypeAdapter(Arithmetic)
CARD, RECORDS, LOCK, DRIVER = "_labelling.json", "_shards", ".lock", ".driver"


class Stopped(Exception):
    """The driver of a worker has stopped, or another has taken its place."""


@dataclass(frozen=True)
class Record:
    """What a labelled shard was made of (sha256 of the shard, digest of the model), and what came of it."""

    shard: str
    model: str
    sha256: str
    rows: int
    per_class: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class Standing:
    """How much of a labelling is done."""

    shards: int
    all_shards: int
    rows: int
    all_rows: int


@dataclass(frozen=True)
class Labelling:
    """The corpus in ``corpus``, labelled in ``folder`` by the model of ``run``, whose digest is ``model``.

    ``driver`` is the id of who gives out the work: a new one, for it may do so. ``arithmetic`` is that of all of its
    workers, so that a shard's file is the same whoever makes it.
    """

    run: Finished
    model: str
    corpus: Path
    manifest: Manifest
    folder: Path
    driver: str = field(default_factory=lambda: uuid4().hex)
    arithmetic: Arithmetic = "padded"

    @staticmethod
    def open(run: Path, corpus: Path, folder: Path, int8: bool = False) -> Labelling:
        """Nothing is written yet. InputError when the run is not finished, the corpus is none or of another kind of
        rows, or ``folder`` holds something else, such as labels by another model, or that this machine cannot make.
        """
        if not is_corpus(str(corpus)):
            raise InputError(
                f"{corpus} is no corpus; make one of your files with `listflow ingest`, or label a single file, row by "
                "row as it stands, with `listflow predict`."
            )
        found, manifest = Finished.open(run), read_manifest(corpus)
        if manifest.is_pair != found.task.is_pair:
            kinds = ("one text", "two texts")
            raise InputError(
                f"{corpus} has {kinds[manifest.is_pair]} a row where {run} takes {kinds[found.task.is_pair]}."
            )
        if not manifest.shards:
            raise InputError(f"{corpus} has no rows; add some with `listflow ingest`.")
        labelling = Labelling(found, found.digest(), corpus, manifest, folder)
        labelling = replace(labelling, arithmetic=labelling._check_folder(int8))
        check_here(labelling.arithmetic, resolve_device(found.trained_on["device"]).split(":")[0])
        return labelling

    def driven_by(self, driver: str) -> Labelling:
        """The same for a worker of ``driver``, or of whoever gives out the work now where that is empty."""
        return replace(self, driver=driver or self._driver_now())

    def output(self, shard: Shard) -> Path:
        return self.folder / f"{shard.number:06d}.parquet"

    def record(self, shard: Shard) -> Path:
        return self.folder / RECORDS / f"{shard.number:06d}.json"

    @property
    def labels(self) -> list[str]:
        return list(self.run.task.labels)

    @contextmanager
    def begun(self) -> Iterator[None]:
        """The folder, made and locked; InputError when another process is labelling there."""
        with storing(self.folder):
            (self.folder / RECORDS).mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCK, timeout=0)
        try:
            with lock:
                with replacing_shared(self.folder / DRIVER) as aside:
                    aside.write_text(self.driver, "utf-8")
                with replacing_shared(self.folder / CARD) as aside:
                    aside.write_text(json.dumps(self._card(), indent=1, ensure_ascii=False) + "\n", "utf-8")
                with self.stopping_workers():
                    yield
        except Timeout as error:
            raise InputError(f"another process is labelling into {self.folder}; wait for it to end.") from error

    def done(self) -> dict[int, Record]:
        """What is labelled and intact, by shard number. Reads every file of the folder once."""
        found = ((shard.number, self._believed(shard)) for shard in self.manifest.shards)
        return {number: record for number, record in found if record}

    def left(self) -> list[Shard]:
        """The shards that are still to be labelled; whatever is there of them counts no more."""
        done = self.done()
        left = [shard for shard in self.manifest.shards if shard.number not in done]
        for shard in left:
            self.record(shard).unlink(missing_ok=True)
        return left

    def standing(self) -> Standing:
        """How far it is, from the names of files alone: cheap, and to be asked after ``left``."""
        there = {path.name for path in (self.folder / RECORDS).iterdir()}
        done = [shard for shard in self.manifest.shards if self.record(shard).name in there]
        rows = sum(shard.rows for shard in done)
        return Standing(len(done), len(self.manifest.shards), rows, self.manifest.rows)

    def is_done(self, shard: Shard) -> bool:
        """Whether one shard is labelled and intact."""
        return self._believed(shard) is not None

    def sweep(self) -> None:
        """Removes what killed workers left half written; only when nobody works any more."""
        for path in self.folder.rglob(".*.part"):
            path.unlink(missing_ok=True)

    @contextmanager
    def stopping_workers(self) -> Iterator[None]:
        """Whatever ends the block other than its end tells all workers, on any machine, to stop at their next batch."""
        try:
            yield
        except BaseException:
            (self.folder / DRIVER).unlink(missing_ok=True)
            raise

    def check_driven(self) -> None:
        """Stopped where the driver of this worker has stopped, or another gives out the work now."""
        now = self._driver_now()
        if not now or now != self.driver:
            raise Stopped(f"the labelling into {self.folder} was interrupted, or begun anew")

    def _driver_now(self) -> str:
        try:
            return (self.folder / DRIVER).read_text("utf-8")
        except FileNotFoundError:
            return ""

    def _card(self) -> dict[str, Any]:
        made_of = {"model": self.model, "corpus": self.manifest.name, "labels": self.labels}
        named = {"format": FORMAT, **made_of, "run": str(self.run.run), "task": self.run.task.name}
        named["arithmetic"] = self.arithmetic
        return {**named, "shards": [shard.sha256 for shard in self.manifest.shards]}

    def _check_folder(self, int8: bool) -> Arithmetic:
        """How what is there was multiplied, or how to begin: in 8 bits, or by what is fastest here."""
        path = self.folder / CARD
        trained_on = self.run.trained_on
        fast = fastest(trained_on["dtype"], resolve_device(trained_on["device"]).split(":")[0])
        if not path.exists():
            if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.glob("[!.]*"))):
                raise InputError(f"{self.folder} holds something else; choose another --output.")
            return "int8" if int8 else fast
        try:
            card = json.loads(path.read_text("utf-8"))
            pinned = card["format"], card["model"], card["corpus"]
            there = ARITHMETIC.validate_python(card.get("arithmetic", "padded"))
            # Cards of earlier versions have none. A corpus only ever gets shards behind those that it has.
            both = zip(self.manifest.shards, card.get("shards", ()), strict=False)
            is_same_text = all(ours.sha256 == theirs for ours, theirs in both)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged; choose another --output, or delete this folder.") from error
        for value, own, words in zip(
            pinned, (FORMAT, self.model, self.manifest.name), ("another format", "another model", "another corpus"),
            strict=True,
        ):  # fmt: skip
            if value != own:
                raise InputError(f"{self.folder} holds labels of {words}; choose another --output.")
        if not is_same_text:
            raise InputError(f"{self.folder} holds labels of another corpus of this name; choose another --output.")
        known = {self.output(shard).name for shard in self.manifest.shards}
        for file in self.folder.glob("[0-9]*.parquet"):
            if file.name not in known:
                raise InputError(f"{file} is of no shard of {self.corpus}; choose another --output.")
        if int8 and there != "int8":
            raise InputError(
                f"{self.folder} holds labels made without --int8; leave it out, or choose another --output."
            )
        return there

    def _believed(self, shard: Shard) -> Record | None:
        try:
            record = Record(**json.loads(self.record(shard).read_text("utf-8")))
            same = (record.shard, record.model) == (shard.sha256, self.model)
            return record if same and file_digest(self.output(shard)) == record.sha256 else None
        except (OSError, ValueError, TypeError):
            return None
