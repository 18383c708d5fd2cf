"""Tokens of a pool, and what the frozen layers give for every text: made once, memory-mapped, used in all rounds.

All layers below the first tuned one see the same texts with the same weights in every round, so their output is
kept on disk and training starts above them. It is kept in pieces of texts, each named by what it was made of: a corpus
that has grown copies the old ones, and a sample of one copies text by text.

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
from listflow.pipeline.method.sampling import by_length, tokens_at_once
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
    pool: Pool,
    prompt: Prompt,
    folder: Path,
    key: str,
    on_rows: Callable[[int], None] = lambda rows: None,
    carried: Carried | None = None,
) -> Encoded:
    """The pool as ``Encoded`` over memory-mapped files in ``folder``; made only if ``key`` is not there yet.

    What is ``carried`` is copied, where its tokens are by the same prompt.
    """
    manifest = verified(folder)
    if manifest is None or manifest["key"] != key:
        facts = {"key": key, "rows": len(pool), "prompt": prompt.key()}
        before = None if carried is None else verified(carried.tokens)
        if not facts["prompt"] or before is None or before.get("prompt") != facts["prompt"]:
            carried = None
        with new_folder(folder, facts) as aside:
            _write_tokens(pool, prompt, aside, on_rows, carried)
    return _tokens_in(folder, prompt.tokenizer.pad_token_id)


def _tokens_in(folder: Path, pad_id: int) -> Encoded:
    # As plain arrays, of which a slice takes a third of the time.
    read = (np.asarray(np.memmap(folder / f"{n}.bin", dtype=t, mode="r")) for n, t in _TOKEN_FILES.items())
    ids, lengths, mask_at = read
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return Encoded(ids, offsets, mask_at, pad_id)


def _write_tokens(
    pool: Pool, prompt: Prompt, folder: Path, on_rows: Callable[[int], None], carried: Carried | None
) -> None:
    before = None if carried is None else _tokens_in(carried.tokens, prompt.tokenizer.pad_token_id)
    with ExitStack() as stack:
        ids, lengths, mask_at = (stack.enter_context((folder / f"{name}.bin").open("wb")) for name in _TOKEN_FILES)
        for rows, texts in pool.batches(TEXTS_AT_ONCE):
            places = None if carried is None else carried.places[rows.start : rows.stop]
            if before is None or places is None or (places < 0).all():
                encoded = prompt.encode(texts)
            else:
                new = [text for text, place in zip(texts, places.tolist(), strict=True) if place < 0]
                encoded = before.merged(places, prompt.encode(new) if new else None)
            # Not tofile, which does not say that the disk is full.
            ids.write(encoded.ids.tobytes())
            lengths.write(encoded.lengths().astype(np.int32).tobytes())
            mask_at.write(encoded.mask_at.tobytes())
            on_rows(len(texts))


@dataclass(frozen=True)
class Carried:
    """Texts that the run before has: the place there of each text here, -1 for a new one; its folders of them.

    A value's last bits may depend on the texts that were computed with it: the folder of that run is an input of this.
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
        values = np.memmap(folder / VALUES, dtype=_STORED[backbone.dtype], mode="r")
        return np.asarray(values).reshape(-1, backbone.hidden_size)

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
    places = before.alike(carried.places, encoded)
    values = np.memmap(carried.values / VALUES, dtype=_STORED[backbone.dtype], mode="r")
    return _Taken(values.reshape(-1, backbone.hidden_size), before.offsets, places)


def _completed(piece: Encoded, taken: _Taken, places: np.ndarray, backbone: Backbone, below: nn.Module) -> np.ndarray:
    """(tokens, D) of a piece: what is taken, and the rest computed."""
    values = np.empty((int(piece.offsets[-1]), backbone.hidden_size), dtype=_STORED[backbone.dtype])
    is_new, lengths = np.repeat(places < 0, piece.lengths()), piece.lengths()[places >= 0]
    starts = np.repeat(taken.starts[places[places >= 0]] - np.cumsum(lengths) + lengths, lengths)
    values[~is_new] = taken.values[starts + np.arange(len(starts))]
    if is_new.any():
        values[is_new] = _computed(piece.take(np.flatnonzero(places < 0)), backbone, below)
    return values


@torch.inference_mode()
def _computed(piece: Encoded, backbone: Backbone, below: nn.Module) -> np.ndarray:
    """(tokens, D), as they are stored: the output of the layers ``below``."""
    bits = torch.int16 if backbone.dtype == torch.bfloat16 else torch.float32
    values = torch.empty(int(piece.offsets[-1]), backbone.hidden_size, dtype=bits)
    for rows in by_length(piece.lengths(), tokens_at_once(backbone.device.type, TOKENS_A_BATCH)):
        batch = piece.batch(rows).to(backbone.device)
        hidden = below(input_ids=batch.ids, attention_mask=batch.attention).last_hidden_state.cpu()
        for row, states in zip(rows, hidden, strict=True):
            first, end = piece.offsets[row], piece.offsets[row + 1]
            values[first:end] = states[: end - first].view(bits)
    return values.numpy()
