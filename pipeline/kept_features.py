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
    test = None if run.test is None else _kept(run, "test", run.test)
    labelled, corpus = _kept(run, "labelled", run.labelled), _kept(run, "corpus", run.corpus)
    if run.config.backbone.cache_dir:
        keys = {key_of(encoded, run.backbone, _depth(run)) for encoded in (labelled, corpus, test) if encoded}
        forget_oldest(_shared(run), run.config.backbone.cache_gb * 1e9, keys)
    return replace(run, labelled=labelled, corpus=corpus, test=test)


def key_of(encoded: Encoded, backbone: Backbone, depth: int) -> str:
    """sha256 over all that decides the values to the last bit: texts, weights, depth, and what computes them."""
    total = hashlib.sha256(f"{backbone.checksum()} {depth} {backbone.dtype_name} {backbone.device.type}".encode())
    total.update(f"{torch.__version__} {torch.get_num_threads()} {encoded.pad_id}".encode())
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


def _kept(run: Run, name: str, encoded: Encoded) -> Encoded:
    on_rows, depth = counter(run.notify, 0, "read", len(encoded)), _depth(run)
    key = key_of(encoded, run.backbone, depth)
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
