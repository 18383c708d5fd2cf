"""Vectors of the text face for a whole set of texts: computed once, memory-mapped, used in all rounds.

vectors.bin   (N, F) fp32
pieces.json   a key and a count for every piece of texts: a corpus that has grown copies the old ones
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from listflow.data.errors import InputError
from listflow.data.pool import Pool
from listflow.pipeline.backbone.batch import Encoded, vectors_when_needed
from listflow.pipeline.backbone.cache import PIECES, TEXTS_A_PIECE
from listflow.pipeline.backbone.prompt import Text
from listflow.pipeline.backbone.text_face import TextFace
from listflow.pipeline.storage.checkpoint import new_folder, read_json, verified, write_json

VECTORS, FLOAT = "vectors.bin", np.dtype(np.float32).itemsize
Texts = Sequence[Text] | Pool


def with_vectors(
    texts: Texts,
    face: TextFace,
    is_pair: bool,
    folder: Path,
    made_by: str,
    on_rows: Callable[[int], None] = lambda rows: None,
    earlier: Sequence[Path] = (),
) -> Encoded:
    """The vectors of ``texts`` as a classifier takes them, from ``folder``, or made into it when they are needed.

    ``made_by`` says what besides the texts decides the values. What folders of ``earlier`` runs hold of the same
    texts is copied from there.
    """
    width = face.width(is_pair)

    def read() -> np.ndarray:
        keys = [_key(made_by, piece) for piece in _pieces(texts)]
        key = hashlib.sha256(" ".join(keys).encode()).hexdigest()
        manifest = verified(folder)
        if manifest is None or manifest["key"] != key:
            with new_folder(folder, {"key": key, "rows": len(texts)}) as aside:
                _write(texts, keys, face, width, aside, on_rows, earlier)
        return np.memmap(folder / VECTORS, dtype=np.float32, mode="r").reshape(-1, width)

    return vectors_when_needed(len(texts), read)


def _write(
    texts: Texts,
    keys: Sequence[str],
    face: TextFace,
    width: int,
    folder: Path,
    on_rows: Callable[[int], None],
    earlier: Sequence[Path],
) -> None:
    """Piece by piece, so that memory does not grow and bytes do not depend on the past."""
    known, kept = _known(earlier, width), list[tuple[str, int]]()
    with (folder / VECTORS).open("wb") as file:
        for key, piece in zip(keys, _pieces(texts), strict=True):
            values = known[key] if key in known else face.vectors(piece).numpy()
            file.write(np.ascontiguousarray(values).data)  # not tofile, which does not say that the disk is full
            kept.append((key, len(piece)))
            on_rows(len(piece))
    write_json(folder / PIECES, kept)


def _known(folders: Sequence[Path], width: int) -> dict[str, np.ndarray]:
    """By key, the vectors that complete ``folders`` hold; damaged ones, and those of another width, are passed over."""
    found: dict[str, np.ndarray] = {}
    for folder in folders:
        try:
            kept = read_json(folder / PIECES) if verified(folder) else ()
        except InputError:
            continue
        first = 0
        if kept and (folder / VECTORS).stat().st_size != width * FLOAT * sum(count for _, count in kept):
            continue
        for key, count in kept:
            values = np.memmap(folder / VECTORS, dtype=np.float32, mode="r").reshape(-1, width)
            found[key] = values[first : first + count]
            first += count
    return found


def _pieces(texts: Texts) -> Iterator[Sequence[Text]]:
    if isinstance(texts, Pool):
        return (piece for _, piece in texts.batches(TEXTS_A_PIECE))
    return (texts[start : start + TEXTS_A_PIECE] for start in range(0, len(texts), TEXTS_A_PIECE))


def _key(made_by: str, piece: Sequence[Text]) -> str:
    total = hashlib.sha256(made_by.encode())
    for text, pair in piece:
        total.update(f"{len(text)} {text} {'' if pair is None else len(pair)} {pair or ''}".encode())
    return total.hexdigest()
