"""Tokens of a pool, and what the frozen layers give for every text: made once, memory-mapped, used in all rounds.

All layers below the first tuned one see the same texts with the same weights in every round, so their output is
kept on disk and training starts above them. It is kept in pieces of texts, each named by what it was made of: a corpus
that has grown copies the old ones. A sample of a corpus that has grown has other pieces, and copies text by text what
the run before it has of them.

tokens:    ids.bin  lengths.bin  mask_at.bin
features:  values.bin  pieces.json
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from listflow.data.errors import InputError
from listflow.data.pool import Pool
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Encoded, LateFeatures
from listflow.pipeline.backbone.layers import lower
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.method.sampling import by_length
from listflow.pipeline.storage.checkpoint import new_folder, read_json, verified, write_json

TEXTS_AT_ONCE = 2048  # that are tokenised before they are written
TEXTS_A_PIECE = 2048
TOKENS_A_BATCH = 2048
VALUES, PIECES = "values.bin", "pieces.json"
MIXED = ""  # the key of a piece of which some texts were copied: no piece is looked for by it
_TOKEN_FILES = {"ids": np.int32, "lengths": np.int32, "mask_at": np.int32}
# numpy has no bfloat16: its bits are kept as whole numbers.
_STORED: dict[torch.dtype, np.dtype[Any]] = {torch.float32: np.dtype(np.float32), torch.bfloat16: np.dtype(np.int16)}


def encode_pool(
    pool: Pool, prompt: Prompt, folder: Path, key: str, on_rows: Callable[[int], None] = lambda rows: None
) -> Encoded:
    """The pool as ``Encoded`` over memory-mapped files in ``folder``; made only if ``key`` is not there yet."""
    manifest = verified(folder)
    if manifest is None or manifest["key"] != key:
        with new_folder(folder, {"key": key, "rows": len(pool)}) as aside:
            _write_tokens(pool, prompt, aside, on_rows)
    return _tokens_in(folder, prompt.tokenizer.pad_token_id)


def _tokens_in(folder: Path, pad_id: int) -> Encoded:
    ids, lengths, mask_at = (np.memmap(folder / f"{n}.bin", dtype=t, mode="r") for n, t in _TOKEN_FILES.items())
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return Encoded(ids, offsets, mask_at, pad_id)


def _write_tokens(pool: Pool, prompt: Prompt, folder: Path, on_rows: Callable[[int], None]) -> None:
    with ExitStack() as stack:
        ids, lengths, mask_at = (stack.enter_context((folder / f"{name}.bin").open("wb")) for name in _TOKEN_FILES)
        for _, texts in pool.batches(TEXTS_AT_ONCE):
            encoded = prompt.encode(texts)
            # Not tofile, which does not say that the disk is full.
            ids.write(encoded.ids.tobytes())
            lengths.write(encoded.lengths().astype(np.int32).tobytes())
            mask_at.write(encoded.mask_at.tobytes())
            on_rows(len(texts))


@dataclass(frozen=True)
class Carried:
    """Texts that the run before has: the place there of each text here, -1 for a new one; its folders of them.

    The last bits of a value may depend on the texts that were computed with it. So what is copied text by text is what
    the run before has in its folder, which is an input of the run that goes on from it; where that holds nothing, all
    is computed as in a first run.
    """

    places: np.ndarray
    tokens: Path
    values: Path


def with_features(
    encoded: Encoded,
    backbone: Backbone,
    depth: int,
    folder: Path,
    made_by: str,
    on_rows: Callable[[int], None],
    earlier: Callable[[], Sequence[Path]] = tuple,
    holding: Callable[[], AbstractContextManager[None]] = nullcontext,
    carried: Callable[[], Carried | None] = lambda: None,
) -> Encoded:
    """``encoded`` with the output of the first ``depth`` layers, from ``folder``, or made into it when it is needed.

    ``made_by`` says what besides the texts, depth and dtype decides the values. What folders of ``earlier`` runs hold
    of the same pieces is copied from there, and text by text what is ``carried``. ``holding`` is held while ``folder``
    is looked at and made.
    """

    def read() -> np.ndarray:
        with holding():
            _keep_features(encoded, backbone, depth, folder, made_by, on_rows, earlier(), carried)
        return np.memmap(folder / VALUES, dtype=_STORED[backbone.dtype], mode="r").reshape(-1, backbone.hidden_size)

    return replace(encoded, features=LateFeatures(read, np.asarray(encoded.offsets[:-1])))


def _keep_features(
    encoded: Encoded,
    backbone: Backbone,
    depth: int,
    folder: Path,
    made_by: str,
    on_rows: Callable[[int], None],
    earlier: Sequence[Path],
    carried: Callable[[], Carried | None],
) -> None:
    """Makes ``folder`` unless it holds them already."""
    facts = {"key": content_key(encoded, made_by), "depth": depth, "dtype": backbone.dtype_name}
    manifest = verified(folder)
    if manifest is None or any(manifest[name] != value for name, value in facts.items()):
        known = known_spans(earlier, {piece.key for piece in pieces_of(encoded, made_by)}) if earlier else {}
        taken = _taken(encoded, carried(), made_by, facts, backbone)
        with new_folder(folder, facts) as aside:
            _write_values(encoded, backbone, depth, aside, made_by, known, taken, on_rows)


def bytes_needed(backbone: Backbone, *texts: Encoded | None) -> int:
    """What the features of these texts take on disk."""
    tokens = sum(int(encoded.offsets[-1]) for encoded in texts if encoded is not None)
    return tokens * backbone.hidden_size * _STORED[backbone.dtype].itemsize


def content_key(encoded: Encoded, made_by: str) -> str:
    """sha256 over all that decides the values to the last bit: the texts, and what computes them."""
    total = hashlib.sha256(f"{made_by} {encoded.pad_id}".encode())
    total.update(encoded.lengths().tobytes())
    total.update(encoded.ids.data)
    return total.hexdigest()


@dataclass(frozen=True)
class Piece:
    """Consecutive texts, and a key that is equal only for the same texts under the same layers."""

    key: str
    texts: Encoded

    @property
    def tokens(self) -> int:
        """How many tokens its texts have."""
        return int(self.texts.offsets[-1])


def pieces_of(encoded: Encoded, made_by: str) -> Iterator[Piece]:
    """``encoded`` in order, ``TEXTS_A_PIECE`` texts at a time; ``made_by`` says what computes their values."""
    for start in range(0, len(encoded), TEXTS_A_PIECE):
        texts = encoded.take(np.arange(start, min(start + TEXTS_A_PIECE, len(encoded))))
        yield Piece(content_key(texts, made_by), texts)


@dataclass(frozen=True)
class Span:
    """Where the values of a piece lie: a file and its tokens, counted from its begin."""

    file: Path
    tokens: slice


def known_spans(folders: Iterable[Path], wanted: Set[str]) -> dict[str, Span]:
    """Where the ``wanted`` pieces lie that complete ``folders`` hold, by key; damaged folders are passed over."""
    found: dict[str, Span] = {}
    for folder in folders:
        spans = _spans(folder)
        if not wanted.isdisjoint(spans) and verified(folder) is not None:
            found |= spans
    return found


def values_at(span: Span | None, backbone: Backbone) -> np.ndarray | None:
    """The values at ``span``; None without one, or where another run has cleared a shared folder meanwhile."""
    if span is None:
        return None
    try:
        whole = np.memmap(span.file, dtype=_STORED[backbone.dtype], mode="r").reshape(-1, backbone.hidden_size)
    except FileNotFoundError:
        return None
    return whole[span.tokens]


def _spans(folder: Path) -> dict[str, Span]:
    """By key, those of all pieces that ``folder`` says it holds; none where it says nothing."""
    first, spans = 0, dict[str, Span]()
    try:
        kept = read_json(folder / PIECES)
    except InputError:
        return spans
    for key, tokens in kept:
        spans[key] = Span(folder / VALUES, slice(first, first + tokens))
        first += tokens
    return spans


def _write_values(
    encoded: Encoded,
    backbone: Backbone,
    depth: int,
    folder: Path,
    made_by: str,
    known: dict[str, Span],
    taken: _Taken | None,
    on_rows: Callable[[int], None],
) -> None:
    """Piece by piece in the order of the texts, so that memory does not grow and bytes do not depend on the past."""
    below, kept, first = lower(backbone, depth), list[tuple[str, int]](), 0
    with (folder / VALUES).open("wb") as file:
        for piece in pieces_of(encoded, made_by):
            values, key, end = values_at(known.get(piece.key), backbone), piece.key, first + len(piece.texts)
            if values is None and taken is not None and (taken.places[first:end] >= 0).any():
                values, key = _completed(piece.texts, taken, taken.places[first:end], backbone, below), MIXED
            values = _computed(piece.texts, backbone, below) if values is None else values
            file.write(values.data)  # not tofile, which does not say that the disk is full
            kept.append((key, piece.tokens))
            first = end
            on_rows(len(piece.texts))
    write_json(folder / PIECES, kept)


@dataclass(frozen=True)
class _Taken:
    """``values`` of the texts of an earlier run, where each begins, and the place there of each text here, or -1."""

    values: np.ndarray
    starts: np.ndarray
    places: np.ndarray


def _taken(
    encoded: Encoded, carried: Carried | None, made_by: str, facts: dict[str, Any], backbone: Backbone
) -> _Taken | None:
    """What is carried of texts that have the same tokens still, where it was made by the same layers."""
    if carried is None or verified(carried.tokens) is None:
        return None
    before, found = _tokens_in(carried.tokens, encoded.pad_id), verified(carried.values)
    wanted = facts | {"key": content_key(before, made_by)}
    if found is None or any(found[name] != value for name, value in wanted.items()):
        return None
    places = np.array([_same(encoded, row, before, place) for row, place in enumerate(carried.places.tolist())])
    values = np.memmap(carried.values / VALUES, dtype=_STORED[backbone.dtype], mode="r")
    return _Taken(values.reshape(-1, backbone.hidden_size), before.offsets, places)


def _same(encoded: Encoded, row: int, before: Encoded, place: int) -> int:
    """``place``, or -1 where the text there has other tokens than that of ``row``."""
    if place < 0:
        return place
    one, two = (texts.ids[texts.offsets[at] : texts.offsets[at + 1]] for texts, at in ((encoded, row), (before, place)))
    return place if np.array_equal(one, two) else -1


def _completed(piece: Encoded, taken: _Taken, places: np.ndarray, backbone: Backbone, below: nn.Module) -> np.ndarray:
    """(tokens, D) of a piece: what is taken, and the rest computed."""
    values = np.empty((int(piece.offsets[-1]), backbone.hidden_size), dtype=_STORED[backbone.dtype])
    new, lengths = np.flatnonzero(places < 0), piece.lengths()
    sources = [(taken.values, taken.starts[place], row) for row, place in enumerate(places) if place >= 0]
    if len(new):
        rest = piece.take(new)
        computed = _computed(rest, backbone, below)
        sources += [(computed, start, row) for start, row in zip(rest.offsets.tolist(), new.tolist(), strict=False)]
    for source, start, row in sources:
        values[piece.offsets[row] : piece.offsets[row + 1]] = source[start : start + lengths[row]]
    return values


@torch.inference_mode()
def _computed(piece: Encoded, backbone: Backbone, below: nn.Module) -> np.ndarray:
    """(tokens, D), as they are stored: the output of the layers ``below``."""
    bits = torch.int16 if backbone.dtype == torch.bfloat16 else torch.float32
    values = torch.empty(int(piece.offsets[-1]), backbone.hidden_size, dtype=bits)
    for rows in by_length(piece.lengths(), TOKENS_A_BATCH):
        batch = piece.batch(rows).to(backbone.device)
        hidden = below(input_ids=batch.ids, attention_mask=batch.attention).last_hidden_state.cpu()
        for row, states in zip(rows, hidden, strict=True):
            first, end = piece.offsets[row], piece.offsets[row + 1]
            values[first:end] = states[: end - first].view(bits)
    return values.numpy()
