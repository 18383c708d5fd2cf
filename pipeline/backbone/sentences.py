"""Vectors of the text face for a whole set of texts: computed once, memory-mapped, used in all rounds.

vectors.bin   (N, F) fp32
pieces.json   a key and a count for every piece of texts: a corpus that has grown copies the old ones, and a sample of
              one, which has other pieces, copies text by text
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from listflow.data.errors import InputError
from listflow.data.pool import Pool
from listflow.pipeline.backbone.batch import Encoded, vectors_when_needed
from listflow.pipeline.backbone.cache import MIXED, PIECES, TEXTS_A_PIECE
from listflow.pipeline.backbone.prompt import Text
from listflow.pipeline.backbone.text_face import TextFace
from listflow.pipeline.storage.checkpoint import new_folder, read_json, verified, write_json

VECTORS, FLOAT = "vectors.bin", np.dtype(np.float32).itemsize
Texts = Sequence[Text] | Pool


@dataclass(frozen=True)
class CarriedTexts:
    """The place of each text among those of the run before, -1 for a new one; that run's texts, and its vectors.

    As with ``cache.Carried``, what is copied is what that run has.
    """

    places: np.ndarray
    texts: Texts
    folder: Path


def with_vectors(
    texts: Texts,
    face: TextFace,
    is_pair: bool,
    folder: Path,
    made_by: str,
    on_rows: Callable[[int], None] = lambda rows: None,
    earlier: Sequence[Path] = (),
    carried: Callable[[], CarriedTexts | None] = lambda: None,
) -> Encoded:
    """The vectors of ``texts`` as a classifier takes them, from ``folder``, or made into it when they are needed.

    ``made_by`` says what besides the texts decides the values. What folders of ``earlier`` runs hold of the same
    pieces is copied from there, and text by text what is ``carried``.
    """
    width = face.width(is_pair)

    def read() -> np.ndarray:
        keys = [_key(made_by, piece) for piece in _pieces(texts)]
        key = _whole(keys)
        manifest = verified(folder)
        if manifest is None or manifest["key"] != key:
            with new_folder(folder, {"key": key, "rows": len(texts)}) as aside:
                _write(texts, keys, face, width, aside, on_rows, earlier, _taken(carried(), made_by, width))
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
    taken: _Taken | None,
) -> None:
    """Piece by piece, so that memory does not grow and bytes do not depend on the past."""
    known, kept, first = _known(earlier, width), list[tuple[str, int]](), 0
    with (folder / VECTORS).open("wb") as file:
        for key, piece in zip(keys, _pieces(texts), strict=True):
            places = None if taken is None else taken.places[first : first + len(piece)]
            if key in known:
                values = known[key]
            elif taken is None or places is None or (places < 0).all():
                values = face.vectors(piece).numpy()
            else:
                values, key = _completed(piece, taken.values, places, face), MIXED
            file.write(np.ascontiguousarray(values).data)  # not tofile, which does not say that the disk is full
            kept.append((key, len(piece)))
            first += len(piece)
            on_rows(len(piece))
    write_json(folder / PIECES, kept)


@dataclass(frozen=True)
class _Taken:
    """``values`` of the texts of an earlier run, and the place there of each text here, or -1."""

    values: np.ndarray
    places: np.ndarray


def _taken(carried: CarriedTexts | None, made_by: str, width: int) -> _Taken | None:
    """What is carried, where it is whole and was made of these texts by the same encoder."""
    manifest = None if carried is None else verified(carried.folder)
    if carried is None or manifest is None:
        return None
    if manifest["key"] != _whole([_key(made_by, piece) for piece in _pieces(carried.texts)]):
        return None
    return _Taken(np.memmap(carried.folder / VECTORS, dtype=np.float32, mode="r").reshape(-1, width), carried.places)


def _completed(piece: Sequence[Text], before: np.ndarray, places: np.ndarray, face: TextFace) -> np.ndarray:
    """(N, F) of a piece: what is there before, and the rest computed."""
    values, new = before[places], np.flatnonzero(places < 0)
    if len(new):
        values[new] = face.vectors([piece[row] for row in new.tolist()]).numpy()
    return values


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


def _whole(keys: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(keys).encode()).hexdigest()


def _key(made_by: str, piece: Sequence[Text]) -> str:
    total = hashlib.sha256(made_by.encode())
    for text, pair in piece:
        total.update(f"{len(text)} {text} {'' if pair is None else len(pair)} {pair or ''}".encode())
    return total.hexdigest()
