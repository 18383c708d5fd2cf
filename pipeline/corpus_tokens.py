"""The tokenised corpus: every unlabelled row prompted and tokenised once, then memory-mapped."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from listflow.data.pool import Corpus
from listflow.pipeline.backbone.prompt import Encoded, Prompt
from listflow.pipeline.storage.checkpoint import new_folder, verified

ROWS_AT_ONCE = 2048
_FILES = {"ids": np.int32, "lengths": np.int32, "mask_at": np.int32}


def encode_corpus(
    corpus: Corpus, prompt: Prompt, folder: Path, key: str, on_rows: Callable[[int], None] = lambda rows: None
) -> Encoded:
    """The corpus as ``Encoded`` over memory-mapped files in ``folder``; made only if ``key`` is not there yet."""
    manifest = verified(folder)
    if manifest is None or manifest["key"] != key:
        with new_folder(folder, {"key": key, "rows": len(corpus)}) as aside:
            _write(corpus, prompt, aside, on_rows)
    ids, lengths, mask_at = (np.memmap(folder / f"{n}.bin", dtype=t, mode="r") for n, t in _FILES.items())
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return Encoded(ids, offsets, mask_at, prompt.tokenizer.pad_token_id)


def _write(corpus: Corpus, prompt: Prompt, folder: Path, on_rows: Callable[[int], None]) -> None:
    with ExitStack() as stack:
        ids, lengths, mask_at = (stack.enter_context((folder / f"{name}.bin").open("wb")) for name in _FILES)
        for _, texts in corpus.batches(ROWS_AT_ONCE):
            encoded = prompt.encode(texts)
            # Not tofile, which does not say that the disk is full.
            ids.write(encoded.ids.tobytes())
            lengths.write(encoded.lengths().astype(np.int32).tobytes())
            mask_at.write(encoded.mask_at.tobytes())
            on_rows(len(texts))
