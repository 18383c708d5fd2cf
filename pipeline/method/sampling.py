"""Seeds, and which rows each step sees.

Random numbers come from (run seed, purpose, ...), never from a running global state. The rows of all steps are drawn
before the first one, so that the place where training goes on is a step number.
"""

from __future__ import annotations

import hashlib

import numpy as np

BATCHES_PER_BUCKET = 20  # batches whose rows are sorted by length together
# Kernels are compiled once for every shape they meet: a few widths instead of a hundred save more time than the
# padding costs.
WIDTH_STEP = 8
TO_FILL_A_GPU = 2**14  # padded tokens: four times fewer leave it waiting for launches, four times more win nothing


def seed_for(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed that depends on nothing but its arguments, on any machine."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(seed: int, *purpose: str | int) -> np.random.Generator:
    """A NumPy generator of its own for one purpose."""
    return np.random.default_rng(seed_for(seed, *purpose))


def epochs(rows: int, steps: int, batch: int, rng: np.random.Generator) -> list[np.ndarray]:
    """``steps`` arrays of ``batch`` row indices, from one permutation after the other: few rows come often."""
    needed = steps * batch
    passes = [rng.permutation(rows) for _ in range(-(-needed // rows))] if rows else []
    flat = np.concatenate(passes)[:needed] if passes else np.empty(0, dtype=np.int64)
    return [flat[i * batch : (i + 1) * batch] for i in range(steps)]


def bucketed(lengths: np.ndarray, steps: int, batch: int, rng: np.random.Generator) -> list[np.ndarray]:
    """As ``epochs``, but rows of like length share a batch: little padding, and still random across batches.

    ``lengths`` (N,) are the tokens of each row.
    """
    drawn = np.concatenate(epochs(len(lengths), steps, batch, rng))
    batches: list[np.ndarray] = []
    for start in range(0, len(drawn), BATCHES_PER_BUCKET * batch):
        bucket = drawn[start : start + BATCHES_PER_BUCKET * batch]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        cut = [bucket[i : i + batch] for i in range(0, len(bucket), batch)]
        batches.extend(cut[i] for i in rng.permutation(len(cut)))
    return batches


def by_length(lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """All rows once, longest first, in batches of at most ``tokens`` padded tokens; for inference."""
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, tokens // round_up(int(lengths[order[start]])))
        batches.append(order[start : start + size])
        start += size
    return batches


def tokens_at_once(device: str, on_processor: int) -> int:
    """Padded tokens of a batch that is only read, on a ``device`` (a type): few stay in a processor's caches."""
    return on_processor if device == "cpu" else TO_FILL_A_GPU


def round_up(tokens: int) -> int:
    """The padded width for texts of at most ``tokens`` tokens."""
    return -(-tokens // WIDTH_STEP) * WIDTH_STEP
