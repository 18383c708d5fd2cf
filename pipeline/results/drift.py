"""Whether the new rows of a continued run look like the old ones, and how far its model has moved on each shard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from listflow.data.errors import InputError
from listflow.data.rows import stem
from listflow.data.shards import is_corpus, read_manifest
from listflow.pipeline.method.drift import (
    ROWS,
    Drift,
    ShardAgreement,
    Side,
    drawn,
    unseen_share,
    warnings_of,
    words_of,
)
from listflow.pipeline.run.opening import NOTICED_UNKNOWN
from listflow.pipeline.run.run import Run, counter
from listflow.pipeline.run.wording import percent
from listflow.pipeline.storage.checkpoint import read_json
from listflow.pipeline.storage.run_folder import RunFolder
from listflow.pipeline.training.committee import speaking
from listflow.pipeline.training.rounds import committee_logits

ROWS_OF_SHARD = 100
MOST_SHARDS = 50  # the latest ones: a corpus may have thousands


def measure_drift(run: Run, winner: int) -> Drift | None:
    """The ``Drift`` of a continued run whose final model is that of round ``winner``; None without old or new rows."""
    fresh = run.fresh_rows()
    known = np.setdiff1d(np.arange(len(run.corpus)), fresh, assume_unique=True)
    if not len(known) or not len(fresh):
        return None
    words, old = _halves(drawn(run.config.seed, "old", known, 2 * ROWS))
    vocabulary = set(_words(run, words))
    before = _side(run, "old", old, vocabulary)
    after = _side(run, "new", drawn(run.config.seed, "new", fresh), vocabulary)
    return Drift(before, after, tuple(_agreements(run, winner)), tuple(warnings_of(before, after)))


def strange_texts(unknown: float, runs: Sequence[Path]) -> Iterable[str]:
    """A sentence where the share of ``unknown`` tokens is high, with what it was in the texts of ``runs``, if known."""
    if unknown <= NOTICED_UNKNOWN:
        return
    shares = [_reported(run) for run in runs]
    known = [share for share in shares if share is not None]
    usual = f", and of {percent(max(known))} of those that the run learned from" if known else ""
    yield (
        f"the backbone does not know {percent(unknown)} of the tokens of these texts{usual}: texts that differ in "
        "these alone get the same label."
    )


def _reported(run: Path) -> float | None:
    """The share of unknown tokens in the unlabelled rows of a run; None where its folder does not say it."""
    try:
        return float(read_json(RunFolder(run).report)["unknown"]["unlabelled"])
    except (InputError, KeyError):
        return None


def _side(run: Run, name: str, rows: np.ndarray, vocabulary: set[str]) -> Side:
    soft = _said(run, 0, f"drift, {name} rows", rows).softmax(-1)
    top = soft.argmax(-1).tolist()
    labels = {label: top.count(i) / len(rows) for i, label in enumerate(run.labels)}
    unseen = unseen_share(_words(run, rows), vocabulary)
    unknown = run.prompt.tally(run.prompt.encode(run.inputs.pool.texts(rows.tolist()))).share
    return Side(len(rows), labels, soft.amax(-1).mean().item(), unseen, unknown)


def _agreements(run: Run, winner: int) -> Iterable[ShardAgreement]:
    for name, rows in list(_shards(run).items())[-MOST_SHARDS:]:
        some = drawn(run.config.seed, name, rows, ROWS_OF_SHARD)
        one, two = (_said(run, of, f"drift, {name}", some).argmax(-1) for of in (0, winner))
        yield ShardAgreement(name, len(one), (one == two).float().mean().item())


def _said(run: Run, number: int, phase: str, rows: np.ndarray) -> Tensor:
    return committee_logits(run, number, rows, counter(run.notify, number, phase, len(rows) * len(speaking(run))))


def _shards(run: Run) -> dict[str, range]:
    """Corpus rows by shard, in the order of the corpus; a plain file is one shard."""
    pool, found = run.inputs.pool, dict[str, range]()
    folders = {stem(source): Path(source) for source in run.config.data.unlabelled if is_corpus(source)}
    for name, span in pool.spans().items():
        if name not in folders:
            found[name] = span
            continue
        for shard in read_manifest(folders[name]).shards:
            first, end = (pool.upto(span, row) for row in (shard.first - 1, shard.first + shard.rows - 1))
            if first < end:
                found[f"{name}/{shard.number:06d}"] = span[first:end]
    return found


def _words(run: Run, rows: np.ndarray) -> list[str]:
    return words_of(run.inputs.pool.texts(rows.tolist()))


def _halves(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rows[::2], rows[1::2]
