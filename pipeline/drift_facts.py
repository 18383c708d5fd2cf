"""What a continued run knows of its new text beside the old: a value for drift.json and the report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Side:
    """A sample of rows: how often the earlier run's model gives each label, how sure it is, how many words are new.

    ``unseen`` is the share of words that do not occur in the vocabulary sample of the old rows.
    """

    rows: int
    labels: dict[str, float]
    confidence: float
    unseen: float


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
