"""Which rows each step sees, and the seeds that decide it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from listflow.pipeline.method.sampling import (
    TO_FILL_A_GPU,
    bucketed,
    by_length,
    epochs,
    generator_for,
    seed_for,
    tokens_at_once,
)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 50), st.integers(1, 30), st.integers(1, 9), st.integers(0, 99))
def test_batches_pass_over_all_rows_evenly(rows: int, steps: int, batch: int, seed: int) -> None:
    lengths = np.arange(rows) % 7 + 1
    plain = epochs(rows, steps, batch, np.random.default_rng(seed))
    for order in (plain, bucketed(lengths, steps, batch, np.random.default_rng(seed))):
        counts = np.bincount(np.concatenate(order), minlength=rows)
        assert [len(b) for b in order] == [batch] * steps
        assert counts.max() - counts.min() <= 1


def test_buckets_waste_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(4, 100, 5000)
    padded = sum(len(b) * lengths[b].max() for b in bucketed(lengths, 100, 32, np.random.default_rng(1)))
    real = sum(lengths[b].sum() for b in bucketed(lengths, 100, 32, np.random.default_rng(1)))
    assert padded / real < 1.1


def test_inference_batches_hold_every_row_once_within_the_token_limit() -> None:
    lengths = np.random.default_rng(0).integers(4, 100, 999)
    batches = by_length(lengths, 512)
    assert sorted(np.concatenate(batches)) == list(range(999))
    assert max(len(b) * lengths[b].max() for b in batches) <= 512


def test_batches_that_are_only_read_fill_a_gpu() -> None:
    assert [tokens_at_once(device, 1024) for device in ("cpu", "cuda")] == [1024, TO_FILL_A_GPU]


def test_seeds_depend_on_every_part_of_the_purpose() -> None:
    purposes: list[tuple[int, ...]] = [(1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3), (12, 3), (1, 23)]
    assert len({seed_for(*purpose) for purpose in purposes}) == len(purposes)
    assert generator_for(1, "x").integers(1000) == generator_for(1, "x").integers(1000)
