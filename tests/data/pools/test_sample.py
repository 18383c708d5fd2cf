"""The working pool: which rows a sample has, of how many, and what a run that goes on takes over."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from listflow.data.corpora.ingest import ingest
from listflow.data.errors import InputError
from listflow.data.pool import ROWS_AT_ONCE, BuiltPool
from listflow.data.pools.sample import build_pool
from listflow.data.rows import Counted, Unlabelled, text_key
from listflow.data.splits import priorities
from listflow.data.task import Columns


def texts_file(path: Path, texts: list[str]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text,note\n" + "".join(f'"{text}",-\n' for text in texts), "utf-8")
    return str(path)


def build(
    folder: Path, *sources: str, most: int | None, seed: int = 1, exclude: frozenset[str] = frozenset()
) -> BuiltPool:
    folder.mkdir(exist_ok=True)
    return build_pool(Unlabelled(sources, Columns(), False, exclude), folder / "pool.arrow", most, seed)


def ids(built: BuiltPool) -> list[str]:
    return built.pool.row_ids(range(len(built.pool)))


def expected(counts: dict[str, int], most: int, seed: int = 1) -> list[str]:
    """By sorting all rows at once."""
    rows = [
        (int(priority), name, row)
        for name, count in counts.items()
        for row, priority in enumerate(priorities(seed, name, np.arange(1, count + 1)), 1)
    ]
    order = list(counts)
    return [f"{name}:{row}" for _, name, row in sorted(sorted(rows)[:most], key=lambda at: (order.index(at[1]), at[2]))]


@pytest.mark.parametrize("most", [10, 300, ROWS_AT_ONCE, 3000])
def test_the_rows_of_the_smallest_priorities_are_taken_in_the_order_of_the_sources(tmp_path: Path, most: int) -> None:
    counts = {"week": 5000, "other": 700}
    sources = [texts_file(tmp_path / f"{name}.csv", [f"{name} {i}" for i in range(n)]) for name, n in counts.items()]
    built = build(tmp_path / "run", *sources, most=most)
    assert ids(built) == expected(counts, most)
    assert (built.rows, built.is_sample, len(built.pool)) == (5700, True, most)
    assert {name: (each.rows, each.last) for name, each in built.sources.items()} == {
        "week": (5000, 5000), "other": (700, 700),
    }  # fmt: skip
    assert built.pool.texts([0]) == [(f"week {int(ids(built)[0].partition(':')[2]) - 1}", None)]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["pool.arrow"]


def test_a_pool_with_no_more_rows_than_that_is_whole_to_the_byte(tmp_path: Path) -> None:
    sources = [texts_file(tmp_path / f"{i}.csv", [f"{i} {n}" for n in range(1500)] + [""]) for i in range(2)]
    plain, limited = (build(tmp_path / name, *sources, most=most) for name, most in (("a", None), ("b", 3000)))
    assert plain.pool.path.read_bytes() == limited.pool.path.read_bytes()
    assert not limited.is_sample
    assert (limited.rows, limited.skipped_blank) == (3000, 2)
    assert limited.sources["0"].last == 1501


def test_an_old_row_of_a_longer_source_was_taken_of_the_shorter_one(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(4000)]
    taken = [
        set(ids(build(tmp_path / str(rows), texts_file(tmp_path / str(rows) / "week.csv", texts[:rows]), most=200)))
        for rows in (500, 1700, 4000)
    ]
    for shorter, longer, rows in zip(taken, taken[1:], (500, 1700), strict=False):
        assert {row for row in longer if int(row.partition(":")[2]) <= rows} <= shorter


def test_a_priority_depends_on_seed_source_and_row_alone() -> None:
    whole = priorities(1, "week", np.arange(1, 100_001))
    assert (priorities(1, "week", np.array([7, 99_999, 3])) == whole[[6, 99_998, 2]]).all()
    assert not (priorities(2, "week", np.arange(1, 100_001)) == whole).any()
    assert not (priorities(1, "other", np.arange(1, 100_001)) == whole).any()
    # 100 bins of 1,000: chi squared of 99 degrees of freedom, which is below 149 in 999 of 1,000 draws.
    for numbers in (whole, priorities(1, "week", np.arange(1, 100_001) * 64)):
        bins = np.bincount((numbers >> np.uint64(32)).astype(np.float64).astype(np.int64) * 100 >> 32, minlength=100)
        assert ((bins - 1000) ** 2 / 1000).sum() < 149
    # Rows that are taken are no neighbours more often than by chance.
    taken = np.sort(np.argsort(whole)[:10_000])
    assert abs((np.diff(taken) == 1).sum() - 1000) < 150


def test_what_is_left_out_is_counted_over_all_rows(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(300)] + ["known", "", "known"]
    source = texts_file(tmp_path / "week.csv", texts)
    built = build(tmp_path / "run", source, most=20, exclude=frozenset({text_key("known", None)}))
    assert (built.rows, built.excluded, built.skipped_blank, len(built.pool)) == (300, 2, 1, 20)
    assert (built.sources["week"].rows, built.sources["week"].last) == (303, 303)
    with pytest.raises(InputError, match="1 blank, 2 among the labelled rows"):
        build(
            tmp_path / "none", texts_file(tmp_path / "few.csv", texts[300:]), most=20,
            exclude=frozenset({text_key("known", None)}),
        )  # fmt: skip
    assert list((tmp_path / "none").iterdir()) == []


def test_memory_stays_small_however_many_rows(tmp_path: Path) -> None:
    path = tmp_path / "big.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("text\n")
        file.writelines(f"{number} {'word ' * 40}\n" for number in range(100_000))
    tracemalloc.start()
    try:
        built = build(tmp_path, str(path), most=5000)
        assert tracemalloc.get_traced_memory()[1] < 6e6
    finally:
        tracemalloc.stop()
    assert (len(built.pool), built.rows) == (5000, 100_000)


def test_a_corpus_is_read_behind_a_row(tmp_path: Path) -> None:
    for number in range(2):
        rows = [f"text {number} {i}" for i in range(40)]
        ingest(tmp_path / "tickets", [texts_file(tmp_path / f"{number}.csv", rows)], Columns(), rows_a_shard=20)
    (tmp_path / "tickets" / "shards" / "000001.parquet").unlink()  # not looked at
    asked = Unlabelled((str(tmp_path / "tickets"),), Columns(), False)
    counted = Counted()
    assert [row.number for row in asked.kept("tickets", counted, after=25)] == list(range(26, 81))
    assert (counted.rows, counted.last) == (55, 80)
