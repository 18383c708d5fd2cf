"""Whether a run keeps the output of its frozen layers, where, and for how long.

A shared folder is keyed by content, so another stage, seed or preset on the same texts finds it there. It holds
``backbone.cache_gb`` at most: what was used longest ago goes first, and costs no more than being computed again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from filelock import FileLock

from pipeline.backbone import Backbone
from pipeline.checkpoint import MANIFEST
from pipeline.features import bytes_needed, with_features
from pipeline.model import first_tuned_layer
from pipeline.prompt import Encoded
from pipeline.run import Run, counter


def keeps_features(run: Run) -> bool:
    """Whether there are frozen layers below the tuned ones, and room for their output."""
    return 0 < _bytes_to_keep(run) <= run.config.backbone.cache_gb * 1e9


def room_notices(run: Run) -> Iterator[str]:
    """What a user should know who has too little room for that output."""
    allowed, needed = run.config.backbone.cache_gb, _bytes_to_keep(run) / 1e9
    if needed > allowed:
        yield (
            f"the output of the frozen layers would take {needed:.1f} GB and is not kept (backbone.cache_gb is "
            f"{allowed:g}): every round computes it again."
        )


def with_kept_features(run: Run) -> Run:
    """The run with the output of the frozen layers at hand for all of its texts."""
    given = {"labelled": run.labelled, "corpus": run.corpus} | ({} if run.test is None else {"test": run.test})
    frozen = _frozen(run.backbone, _depth(run))
    keys = {name: _key(encoded, frozen) for name, encoded in given.items()}
    kept = {name: _kept(run, name, encoded, keys[name]) for name, encoded in given.items()}
    if run.config.backbone.cache_dir:
        forget_oldest(_shared(run), run.config.backbone.cache_gb * 1e9, set(keys.values()))
    return replace(run, labelled=kept["labelled"], corpus=kept["corpus"], test=kept.get("test"))


def key_of(encoded: Encoded, backbone: Backbone, depth: int) -> str:
    """sha256 over all that decides the values to the last bit: texts, weights, depth, and what computes them."""
    return _key(encoded, _frozen(backbone, depth))


def _frozen(backbone: Backbone, depth: int) -> str:
    """What is the same for all texts of a run: the layers, and what computes them."""
    layers = f"{backbone.checksum()} {depth} {backbone.dtype_name} {backbone.device.type}"
    return f"{layers} {torch.__version__} {torch.get_num_threads()}"


def _key(encoded: Encoded, frozen: str) -> str:
    total = hashlib.sha256(f"{frozen} {encoded.pad_id}".encode())
    total.update(encoded.lengths().tobytes())
    total.update(encoded.ids.data)
    return total.hexdigest()


def forget_oldest(folder: Path, most_bytes: float, keep: set[str]) -> None:
    """Removes what was used longest ago until ``folder`` holds ``most_bytes`` at most; never what is in ``keep``.

    A run that still reads what goes keeps reading it: its files are open.
    """
    found = sorted((path.parent for path in folder.glob(f"*/{MANIFEST}")), key=lambda f: (f / MANIFEST).stat().st_mtime)
    sizes = {kept: sum(file.stat().st_size for file in kept.iterdir()) for kept in found}
    total = sum(sizes.values())
    for kept in found:
        if total > most_bytes and kept.name not in keep:
            shutil.rmtree(kept, ignore_errors=True)
            total -= sizes[kept]


def _kept(run: Run, name: str, encoded: Encoded, key: str) -> Encoded:
    on_rows, depth = counter(run.notify, 0, "read", len(encoded)), _depth(run)
    if not run.config.backbone.cache_dir:
        return with_features(encoded, run.backbone, depth, run.folder / "inputs" / "features" / name, key, on_rows)
    folder = _shared(run) / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        found = with_features(encoded, run.backbone, depth, folder, key, on_rows)
        (folder / MANIFEST).touch()
    return found


def _shared(run: Run) -> Path:
    return Path(run.config.backbone.cache_dir).expanduser().resolve()


def _depth(run: Run) -> int:
    return first_tuned_layer(run.config.stage, run.backbone)


def _bytes_to_keep(run: Run) -> int:
    return bytes_needed(run.backbone, run.labelled, run.corpus, run.test) if _depth(run) else 0
