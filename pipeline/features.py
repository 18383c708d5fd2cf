"""What the frozen layers give for every text: computed once, memory-mapped, shared by teacher, students and rounds.

All layers below the first tuned one see the same texts with the same weights in every round, so their output is
kept on disk and training starts above them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.backbone import Backbone
from pipeline.checkpoint import new_folder, verified
from pipeline.order import by_length
from pipeline.prompt import Encoded, Features
from pipeline.split import lower

ROWS_AT_ONCE = 2048
TOKENS_A_BATCH = 2048
# numpy has no bfloat16: its bits are kept as whole numbers.
_STORED: dict[torch.dtype, np.dtype[Any]] = {torch.float32: np.dtype(np.float32), torch.bfloat16: np.dtype(np.int16)}


def bytes_needed(backbone: Backbone, *texts: Encoded | None) -> int:
    """What the features of these texts take on disk."""
    tokens = sum(int(encoded.offsets[-1]) for encoded in texts if encoded is not None)
    return tokens * backbone.hidden_size * _STORED[backbone.dtype].itemsize


def with_features(
    encoded: Encoded, backbone: Backbone, depth: int, folder: Path, key: str, on_rows: Callable[[int], None]
) -> Encoded:
    """``encoded`` with the output of the first ``depth`` layers, from ``folder`` or computed into it.

    ``key`` says what besides depth and dtype decides the values: backbone, template, tokenizer, length, texts.
    """
    facts = {"key": key, "depth": depth, "dtype": backbone.dtype_name}
    manifest = verified(folder)
    if manifest is None or any(manifest[name] != value for name, value in facts.items()):
        with new_folder(folder, facts) as aside:
            _write(encoded, backbone, depth, aside / "values.bin", on_rows)
    stored = _STORED[backbone.dtype]
    values = np.memmap(folder / "values.bin", dtype=stored, mode="r").reshape(-1, backbone.hidden_size)
    return replace(encoded, features=Features(values, np.asarray(encoded.offsets[:-1])))


@torch.inference_mode()
def _write(encoded: Encoded, backbone: Backbone, depth: int, path: Path, on_rows: Callable[[int], None]) -> None:
    """Piece by piece in the order of the texts, so that memory does not grow and bytes do not depend on the past."""
    below, bits = lower(backbone, depth), torch.int16 if backbone.dtype == torch.bfloat16 else torch.float32
    with path.open("wb") as file:
        for start in range(0, len(encoded), ROWS_AT_ONCE):
            piece = encoded.take(np.arange(start, min(start + ROWS_AT_ONCE, len(encoded))))
            values = torch.empty(int(piece.offsets[-1]), backbone.hidden_size, dtype=bits)
            for rows in by_length(piece.lengths(), TOKENS_A_BATCH):
                batch = piece.batch(rows).to(backbone.device)
                hidden = below(input_ids=batch.ids, attention_mask=batch.attention).last_hidden_state.cpu()
                for row, states in zip(rows, hidden, strict=True):
                    first, end = piece.offsets[row], piece.offsets[row + 1]
                    values[first:end] = states[: end - first].view(bits)
            values.numpy().tofile(file)
            on_rows(len(piece))
