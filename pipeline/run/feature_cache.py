"""Whether a run keeps the output of its frozen layers, where, and for how long.

A shared folder is keyed by content, so another stage, seed or preset on the same texts finds it there. It holds
``backbone.cache_gb`` at most: what was used longest ago goes first, and costs no more than being computed again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from filelock import FileLock, Timeout

from listflow.data.pool import BuiltPool
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Encoded
from listflow.pipeline.backbone.cache import Carried, bytes_needed, content_key, with_features
from listflow.pipeline.model.classifier import first_tuned_layer
from listflow.pipeline.run.continuation import Parent
from listflow.pipeline.run.run import Run, counter
from listflow.pipeline.storage.checkpoint import MANIFEST
from listflow.pipeline.storage.run_folder import RunFolder


def keeps_features(run: Run) -> bool:
    """Whether there are frozen layers below the tuned ones, and room for their output."""
    return 0 < _bytes_to_keep(run) <= run.config.backbone.cache_gb * 1e9


def room_notices(run: Run) -> Iterator[str]:
    """What a user should know who has too little room for that output."""
    if run.config.face == "text":
        return
    allowed, needed = run.config.backbone.cache_gb, _bytes_to_keep(run) / 1e9
    if needed > allowed:
        yield (
            f"the output of the frozen layers would take {needed:.1f} GB and is not kept (backbone.cache_gb is "
            f"{allowed:g}): every round computes it again."
        )


def with_kept_features(run: Run) -> Run:
    """The run with the output of the frozen layers at hand for all of its texts, each made when it is first needed.

    Of two views, this one may turn out to have no say: the rows that it is judged by are kept by themselves, so that
    the rest of the pool is read only where it has.
    """
    given = {"labelled": run.labelled, "corpus": run.corpus} | ({} if run.test is None else {"test": run.test})
    if run.config.second is not None:
        given["sample"] = run.judged_by()
    made_by = frozen_layers(run.backbone, _depth(run))
    in_use = {content_key(encoded, made_by) for encoded in given.values()} if run.config.backbone.cache_dir else set()
    kept = {name: _kept(run, name, encoded, made_by, in_use) for name, encoded in given.items()}
    return replace(
        run, labelled=kept["labelled"], corpus=kept["corpus"], test=kept.get("test"), sampled=kept.get("sample")
    )


def carried_from(parent: Parent | None, built: BuiltPool) -> Carried | None:
    """What the run before has of the texts of a pool; None where nothing is to be copied text by text."""
    places = None if parent is None else parent.places_of(built)
    if parent is None or places is None:
        return None
    return Carried(places, RunFolder(parent.folder).tokens, _own(parent.folder, "corpus"))


def frozen_layers(backbone: Backbone, depth: int) -> str:
    """What besides the texts decides the values to the last bit: the frozen model, depth, and what computes them."""
    layers = f"{backbone.checksum()} {backbone.settings()} {depth} {backbone.dtype_name} {backbone.device.type}"
    return f"{layers} {torch.__version__} {transformers.__version__} {torch.get_num_threads()}"


def forget_oldest(folder: Path, most_bytes: float, keep: set[str]) -> None:
    """Removes what was used longest ago until ``folder`` holds ``most_bytes`` at most; never what is in ``keep``.

    A run that still reads what goes keeps reading it: its files are open. What another run is making stays.
    """
    found = _kept_before(folder)
    sizes = {kept: _size(kept) for kept in found}
    total = sum(sizes.values())
    for kept in found:
        if total > most_bytes and kept.name not in keep and _removed(kept):
            total -= sizes[kept]


def _removed(kept: Path) -> bool:
    try:
        with FileLock(_lock_of(kept), timeout=0):
            shutil.rmtree(kept, ignore_errors=True)
    except Timeout:
        return False
    return True


def _size(kept: Path) -> int:
    """In bytes; 0 where another run has removed it meanwhile."""
    try:
        return sum(file.stat().st_size for file in kept.iterdir())
    except FileNotFoundError:
        return 0


def _lock_of(kept: Path) -> Path:
    return kept.with_suffix(".lock")


def _kept(run: Run, name: str, encoded: Encoded, made_by: str, in_use: set[str]) -> Encoded:
    on_rows, depth = counter(run.notify, 0, "read", len(encoded)), _depth(run)
    if not run.config.backbone.cache_dir:
        before = () if run.parent is None else (_own(run.parent.folder, name),)
        return with_features(
            encoded, run.backbone, depth, _own(run.folder, name), made_by, on_rows, lambda: before,
            carried=lambda: carried_from(run.parent, run.inputs.built) if name == "corpus" else None,
        )  # fmt: skip
    # A folder that runs share holds what depends on the texts alone: nothing is copied into it text by text.
    shared = _shared(run)
    folder, most = shared / content_key(encoded, made_by), run.config.backbone.cache_gb * 1e9

    @contextmanager
    def holding() -> Iterator[None]:
        shared.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock_of(folder)):
            yield
            (folder / MANIFEST).touch()
        forget_oldest(shared, most, in_use)

    return with_features(encoded, run.backbone, depth, folder, made_by, on_rows, lambda: _kept_before(shared), holding)


def _kept_before(folder: Path) -> list[Path]:
    """What a shared folder holds whole; what was used longest ago comes first."""
    used: dict[Path, float] = {}
    for path in folder.glob(f"[!.]*/{MANIFEST}"):
        with suppress(FileNotFoundError):  # another run may remove it at this very moment
            used[path.parent] = path.stat().st_mtime
    return sorted(used, key=used.__getitem__)


def _own(run: Path, name: str) -> Path:
    return RunFolder(run).features / name


def _shared(run: Run) -> Path:
    return Path(run.config.backbone.cache_dir).expanduser().resolve()


def _depth(run: Run) -> int:
    return first_tuned_layer(run.config.stage, run.backbone)


def _bytes_to_keep(run: Run) -> int:
    return bytes_needed(run.backbone, run.labelled, run.corpus, run.test) if _depth(run) else 0
