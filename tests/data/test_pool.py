"""The unlabelled pool: ids, texts, what is left out, and how little memory it takes."""

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from listflow.data.errors import InputError
from listflow.data.pool import ROWS_AT_ONCE, BuiltPool, Pool
from listflow.data.pools.sample import build_pool
from listflow.data.rows import Unlabelled, source_names, text_key
from listflow.data.task import Columns


def texts_file(path: Path, texts: list[str]) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("text,note\n" + "".join(f'"{text}",-\n' for text in texts), "utf-8")
    return str(path)


def build(folder: Path, *sources: str, exclude: frozenset[str] = frozenset()) -> BuiltPool:
    return build_pool(Unlabelled(sources, Columns(), False, exclude), folder / "pool.arrow")


def test_rows_of_several_sources_keep_their_names_and_numbers(tmp_path: Path) -> None:
    sources = [
        texts_file(tmp_path / "week.csv", ["a", "", "c"]),
        texts_file(tmp_path / "old" / "week.csv", ["d"]),
        texts_file(tmp_path / "other.csv", ["e"]),
    ]
    built = build(tmp_path, *sources)
    pool = built.pool
    assert pool.row_ids(range(len(pool))) == ["week:1", "week:3", "week-2:1", "other:1"]
    assert pool.texts([3, 0, 0]) == [("e", None), ("a", None), ("a", None)]
    assert (built.skipped_blank, built.excluded) == (1, 0)
    assert built.per_source == {"week": 2, "week-2": 1, "other": 1}


def test_names_stay_unique() -> None:
    assert source_names(["a.csv", "b/a.csv", "a-2.csv", "c/a.csv"]) == ["a", "a-2", "a-2-2", "a-3"]


def test_pairs(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text_a,text_b\none,two\nthree,\n", "utf-8")
    built = build_pool(Unlabelled((str(path),), Columns(), True), tmp_path / "pool.arrow")
    assert built.pool.texts(range(1)) == [("one", "two")]
    assert (len(built.pool), built.skipped_blank) == (1, 1)


def test_access_across_record_batches(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(2 * ROWS_AT_ONCE + 5)]
    pool = build(tmp_path, texts_file(tmp_path / "x.csv", texts)).pool
    edges = [0, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE, len(texts) - 1]
    assert [text for text, _ in pool.texts(edges)] == [texts[index] for index in edges]
    batches = list(pool.batches(700))
    assert [index for indices, _ in batches for index in indices] == list(range(len(texts)))
    assert [text for _, rows in batches for text, _ in rows] == texts


@pytest.mark.parametrize("index", [-1, 1])
def test_indices_outside_the_pool(tmp_path: Path, index: int) -> None:
    pool = build(tmp_path, texts_file(tmp_path / "x.csv", ["a"])).pool
    with pytest.raises(IndexError):
        pool.texts([index])


def test_labelled_texts_are_left_out(tmp_path: Path) -> None:
    source = texts_file(tmp_path / "x.csv", ["Known  text", "new", "known text"])
    built = build(tmp_path, source, exclude=frozenset({text_key("KNOWN TEXT", None)}))
    assert built.pool.row_ids([0]) == ["x:2"]
    assert (built.excluded, built.per_source) == (2, {"x": 1})


def test_text_keys() -> None:
    assert text_key(" Straße\tA", None) == text_key("STRASSE a ", None)
    assert len({text_key("a b", None), text_key("a", "b"), text_key("a", None), text_key("b", "a")}) == 4
    assert len(text_key("", None)) == 32


def test_nothing_left_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    source = texts_file(tmp_path / "x.csv", ["", "known"])
    with pytest.raises(InputError, match="1 blank, 1 among the labelled rows"):
        build(tmp_path, source, exclude=frozenset({text_key("known", None)}))
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_failure_half_way_keeps_the_older_pool(tmp_path: Path) -> None:
    build(tmp_path, texts_file(tmp_path / "x.csv", ["old"]))
    good = texts_file(tmp_path / "y.csv", ["new"] * 5000)
    with pytest.raises(InputError, match="no such file"):
        build(tmp_path, good, str(tmp_path / "missing.csv"))
    assert Pool(tmp_path / "pool.arrow").texts([0]) == [("old", None)]
    assert not (tmp_path / "pool.arrow.part").exists()


@pytest.mark.parametrize("content", [None, b"", b"nonsense, and more of it"])
def test_broken_pool_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "pool.arrow"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="delete it and run again"):
        Pool(path)


def test_memory_stays_small_however_many_rows(tmp_path: Path) -> None:
    rows, filler = 100_000, "word " * 40
    path = tmp_path / "big.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("text\n")
        file.writelines(f"{number} {filler}\n" for number in range(rows))
    assert path.stat().st_size > 20e6
    arrow_before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        pool = build(tmp_path, str(path)).pool
        assert tracemalloc.get_traced_memory()[1] < 6e6
    finally:
        tracemalloc.stop()
    assert len(pool) == rows == sum(len(texts) for _, texts in pool.batches(5000))
    assert pool.texts([rows - 1]) == [(f"{rows - 1} {filler}".strip(), None)]
    assert pa.total_allocated_bytes() - arrow_before < 2e6


def test_rows_are_read_by_ranges_lists_and_numbers(tmp_path: Path) -> None:
    texts = ["" if number % 3 == 0 else f"text {number}" for number in range(3 * ROWS_AT_ONCE)]
    sources = [texts_file(tmp_path / "x.csv", texts), texts_file(tmp_path / "y.csv", texts[:10])]
    pool = build(tmp_path, *sources).pool
    rows = list(pool.rows())
    assert [f"{name}:{number}" for name, number, *_ in rows] == pool.row_ids(range(len(pool)))
    some = np.array([0, 5, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, len(pool) - 1])
    assert list(pool.rows(some)) == [rows[index] for index in some]
    for indices in (range(5, ROWS_AT_ONCE + 9), range(0), range(len(pool))):
        assert pool.texts(indices) == pool.texts(list(indices)) == [rows[index][2:] for index in indices]
    with pytest.raises(IndexError):
        pool.texts(range(len(pool) - 1, len(pool) + 1))
    spans = pool.spans()
    assert pool.find(spans["x"], np.array([1, 2, 3, 5, 10**6])).tolist() == [-1, 0, 1, 2, -1]
    assert pool.find(spans["y"], np.array([2, 4])).tolist() == [spans["y"].start, -1]
    assert pool.find(range(0), np.array([2, 4])).tolist() == [-1, -1]
    assert [pool.upto(spans["x"], row) for row in (0, 1, 2, 4, 10**6)] == [0, 0, 1, 2, len(spans["x"])]
