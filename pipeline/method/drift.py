"""Whether new texts look like the old ones: what is said of a sample of each, and what differs by more than chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from listflow.pipeline.method.sampling import generator_for

ROWS = 500  # of the old and of the new rows
ERRORS = 3.0  # standard errors beyond which a difference is no accident
LEAST = 0.05  # differences below this are not worth a warning, however sure
# What is foreign: most words are unseen, and of old words half as many as usual at most; or of the tokens that the
# backbone does not know, so many more. Neither is judged by fewer words, or where words repeat as little as phrases do.
MOST, HALF, MORE_UNKNOWN = 0.5, 0.5, 0.3
FEWEST_WORDS, LEAST_SEEN = 100, 0.3


@dataclass(frozen=True)
class Side:
    """A sample of rows: how often the earlier run's model gives each label, how sure it is, how many words are new.

    ``unseen`` is the share of words that do not occur in the vocabulary sample of the old rows, ``unknown`` that of
    tokens which the backbone does not know.
    """

    rows: int
    labels: dict[str, float]
    confidence: float
    unseen: float
    unknown: float = 0.0


@dataclass(frozen=True)
class ShardAgreement:
    """The share of a shard's sampled rows that the earlier run's model and this one's label alike."""

    shard: str
    rows: int
    agreement: float


@dataclass(frozen=True)
class Drift:
    """Old rows beside new ones, and the shards; ``warnings`` are sentences for the reader of a report."""

    old: Side
    new: Side
    shards: tuple[ShardAgreement, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Words:
    """What is counted of a sample of texts without a model: its words, as in ``Side``."""

    count: int
    unseen: float
    unknown: float


def is_foreign(old: Words, new: Words) -> bool:
    """Whether new texts are of another kind than old ones beyond doubt, such as another language, or logs."""
    if min(old.count, new.count) < FEWEST_WORDS:
        return False
    by_words = 1 - old.unseen >= LEAST_SEEN and new.unseen > MOST and 1 - new.unseen < HALF * (1 - old.unseen)
    return by_words or new.unknown - old.unknown > MORE_UNKNOWN


def words_of(texts: Iterable[tuple[str, str | None]]) -> list[str]:
    """The words of texts and of second texts, in one case."""
    return [word for pair in texts for text in pair if text for word in text.casefold().split()]


def unseen_share(words: Sequence[str], vocabulary: set[str]) -> float:
    """The share of ``words`` that are not in ``vocabulary``, 0 without words."""
    counts = Counter(words)
    return sum(count for word, count in counts.items() if word not in vocabulary) / max(1, counts.total())


def drawn(seed: int, purpose: str, rows: np.ndarray | range, most: int = ROWS) -> np.ndarray:
    """Up to ``most`` of ``rows``, ascending: a draw of its own for every purpose."""
    rng = generator_for(seed, "drift", purpose)
    return np.sort(rng.choice(rows, size=min(most, len(rows)), replace=False))


def warnings_of(old: Side, new: Side) -> Iterable[str]:
    """Sentences on what differs by more than chance: a share by ``ERRORS`` standard errors and ``LEAST``."""
    for label in new.labels:
        if _differ(old.labels[label], new.labels[label], old.rows, new.rows):
            yield (
                f"The new text looks different: {new.labels[label]:.0%} of it is labelled {label!r}, "
                f"and {old.labels[label]:.0%} of the old."
            )
    if _differ(old.unseen, new.unseen, old.rows, new.rows):
        yield f"The new text has other words: {new.unseen:.0%} were not seen before, where {old.unseen:.0%} is usual."
    if _differ(old.unknown, new.unknown, old.rows, new.rows):
        yield (
            f"The backbone does not know {new.unknown:.0%} of the tokens of the new text, and {old.unknown:.0%} of the "
            "old."
        )
    if old.confidence - new.confidence > LEAST:
        yield (
            f"The earlier model is less sure of the new text: {new.confidence:.2f} on average, "
            f"{old.confidence:.2f} on the old."
        )


def _differ(before: float, after: float, rows_before: int, rows_after: int) -> bool:
    """Two shares, by the normal test of proportions over rows: words of one row are not independent."""
    pooled = (before * rows_before + after * rows_after) / (rows_before + rows_after)
    error = (pooled * (1 - pooled) * (1 / rows_before + 1 / rows_after)) ** 0.5
    return abs(after - before) > max(LEAST, ERRORS * error)
