"""Draws: K in total, nested, balanced or natural, the same everywhere."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listflow.data.errors import InputError
from listflow.data.splits import draw

rows = st.lists(st.sampled_from("abcd"), min_size=1, max_size=60)
seeds = st.integers(-5, 2**40)


@given(rows, seeds, st.booleans())
def test_every_draw_is_sorted_distinct_and_nested(labels: list[str], seed: int, balanced: bool) -> None:
    smaller: set[int] = set()
    for k in range(1, len(labels) + 1):
        drawn = draw(labels, k, seed, balanced)
        assert len(drawn) == k
        assert drawn == sorted(set(drawn))
        assert smaller <= set(drawn)
        smaller = set(drawn)


@given(rows, seeds, st.data())
def test_balanced_counts_differ_by_one_as_far_as_rows_allow(labels: list[str], seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(labels)))
    counts = Counter(labels[index] for index in draw(labels, k, seed))
    most = max(counts.values())
    for label, available in Counter(labels).items():
        assert counts[label] >= min(most - 1, available)


def test_natural_draw_follows_the_rows_and_may_miss_a_class() -> None:
    labels = ["common"] * 990 + ["rare"] * 10
    draws = [Counter(labels[index] for index in draw(labels, 10, seed, balanced=False)) for seed in range(20)]
    assert any("rare" not in counts for counts in draws)
    assert sum(counts["common"] for counts in draws) > 180


def test_seeds_give_different_draws_and_the_same_seed_the_same() -> None:
    labels = ["a", "b"] * 50
    assert draw(labels, 10, 1) == draw(labels, 10, 1)
    assert len({tuple(draw(labels, 10, seed)) for seed in range(10)}) == 10


def test_draws_stay_what_they_were() -> None:
    labels = ["a", "b", "c"] * 5
    assert draw(labels, 4, seed=7) == [0, 1, 8, 14]
    assert draw(labels, 4, seed=7, balanced=False) == [1, 2, 3, 4]


@pytest.mark.parametrize("k", [0, -1, 3])
def test_impossible_draws(k: int) -> None:
    with pytest.raises(InputError, match="--shots from 1 to 2"):
        draw(["a", "b"], k, seed=0)
