"""What the frozen layers give for every text: computed once, memory-mapped, shared by teacher, students and rounds.

All layers below the first tuned one see the same texts with the same weights in every round, so their output is
kept on disk and training starts above them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.layers import lower
from listflow.pipeline.backbone.prompt import Encoded, Features
from listflow.pipeline.method.sampling import by_length
from listflow.pipeline.pieces import PIECES, VALUES, Place, content_key, known_places, pieces_of
from listflow.pipeline.storage.checkpoint import new_folder, verified, write_json

TOKENS_A_BATCH = 2048
# numpy has no bfloat16: its bits are kept as whole numbers.
_STORED: dict[torch.dtype, np.dtype[Any]] = {torch.float32: np.dtype(np.float32), torch.bfloat16: np.dtype(np.int16)}


def bytes_needed(backbone: Backbone, *texts: Encoded | None) -> int:
    """What the features of these texts take on disk."""
    tokens = sum(int(encoded.offsets[-1]) for encoded in texts if encoded is not None)
    return tokens * backbone.hidden_size * _STORED[backbone.dtype].itemsize


def with_features(
    encoded: Encoded,
    backbone: Backbone,
    depth: int,
    folder: Path,
    made_by: str,
    on_rows: Callable[[int], None],
    earlier: Sequence[Path] = (),
) -> Encoded:
    """``encoded`` with the output of the first ``depth`` layers, from ``folder``, or made into it.

    ``made_by`` says what besides the texts, depth and dtype decides the values. What folders of ``earlier`` runs hold
    of the same texts is copied from there.
    """
    facts = {"key": content_key(encoded, made_by), "depth": depth, "dtype": backbone.dtype_name}
    manifest = verified(folder)
    if manifest is None or any(manifest[name] != value for name, value in facts.items()):
        known = known_places(earlier, {piece.key for piece in pieces_of(encoded, made_by)}) if earlier else {}
        with new_folder(folder, facts) as aside:
            _write(encoded, backbone, depth, aside, made_by, known, on_rows)
    stored = _STORED[backbone.dtype]
    values = np.memmap(folder / VALUES, dtype=stored, mode="r").reshape(-1, backbone.hidden_size)
    return replace(encoded, features=Features(values, np.asarray(encoded.offsets[:-1])))


def _write(
    encoded: Encoded,
    backbone: Backbone,
    depth: int,
    folder: Path,
    made_by: str,
    known: dict[str, Place],
    on_rows: Callable[[int], None],
) -> None:
    """Piece by piece in the order of the texts, so that memory does not grow and bytes do not depend on the past."""
    below, kept = lower(backbone, depth), list[tuple[str, int]]()
    with (folder / VALUES).open("wb") as file:
        for piece in pieces_of(encoded, made_by):
            values = _copied(known.get(piece.key), backbone)
            values = _computed(piece.texts, backbone, below) if values is None else values
            file.write(values.data)  # not tofile, which does not say that the disk is full
            kept.append((piece.key, piece.tokens))
            on_rows(len(piece.texts))
    write_json(folder / PIECES, kept)


def _copied(place: Place | None, backbone: Backbone) -> np.ndarray | None:
    """The values at ``place``; None without one, or where another run has cleared a shared folder meanwhile."""
    if place is None:
        return None
    try:
        whole = np.memmap(place.file, dtype=_STORED[backbone.dtype], mode="r").reshape(-1, backbone.hidden_size)
    except FileNotFoundError:
        return None
    return whole[place.tokens]


@torch.inference_mode()
def _computed(piece: Encoded, backbone: Backbone, below: nn.Module) -> np.ndarray:
    bits = torch.int16 if backbone.dtype == torch.bfloat16 else torch.float32
    values = torch.empty(int(piece.offsets[-1]), backbone.hidden_size, dtype=bits)
    for rows in by_length(piece.lengths(), TOKENS_A_BATCH):
        batch = piece.batch(rows).to(backbone.device)
        hidden = below(input_ids=batch.ids, attention_mask=batch.attention).last_hidden_state.cpu()
        for row, states in zip(rows, hidden, strict=True):
            first, end = piece.offsets[row], piece.offsets[row + 1]
            values[first:end] = states[: end - first].view(bits)
    return values.numpy()
