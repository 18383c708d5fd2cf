"""The pool of a run that goes on from another: new rows, the old ones from that run's pool, and what is read for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from listflow.data.corpora.ingest import ingest
from listflow.data.pool import Before, BuiltPool
from listflow.data.pools.record import POOL_FILE, RECORD_FILE, before_of, open_pool
from listflow.data.rows import Unlabelled, digest, source_names, text_key
from listflow.data.splits import priorities
from listflow.data.task import Columns

MOST = 50


def ids(built: BuiltPool) -> list[str]:
    return built.pool.row_ids(range(len(built.pool)))


def opened(
    folder: Path, sources: Sequence[Path], before: Before | None = None, most: int = MOST, out: Sequence[str] = ()
) -> tuple[BuiltPool, Before]:
    """(the pool in a folder, what a run that goes on from it knows)."""
    names = [str(source) for source in sources]
    contents = {name: digest(source) for name, source in zip(source_names(names), names, strict=True)}
    exclude = frozenset(text_key(text, None) for text in out)
    built = open_pool(Unlabelled(tuple(names), Columns(), False, exclude, contents), folder, most, 1, before)
    found = before_of(folder, {f"unlabelled/{name}": value for name, value in contents.items()})
    assert found is not None
    return built, found


def texts(name: str, first: int, end: int) -> list[str]:
    return [f"{name} text {number}" for number in range(first, end)]


def csv(path: Path, rows: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text,note\n" + "".join(f'"{row}",-\n' for row in rows), "utf-8")
    return path


def corpus(path: Path, rows: Sequence[str]) -> Path:
    ingest(path, [str(csv(path.parent / f"{path.name}-more.csv", rows))], Columns())
    return path


Source = Callable[[int, int], Path]


@pytest.fixture(params=["a file", "a corpus"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    """Makes or grows a source of ``end`` rows, of which the first ones are there already."""

    def grown(first: int, end: int) -> Path:
        if request.param == "a file":
            return csv(tmp_path / "week.csv", texts("week", 0, end))
        return corpus(tmp_path / "week", texts("week", first, end))

    return grown


def of(rows: Sequence[str], name: str = "week") -> np.ndarray:
    return np.array([int(row.rpartition(":")[2]) for row in rows if row.startswith(f"{name}:")])


def test_new_rows_come_with_the_old_ones_of_the_smallest_priorities(source: Source, tmp_path: Path) -> None:
    first, before = opened(tmp_path / "one", [source(0, 300)])
    second, _ = opened(tmp_path / "two", [source(300, 320)], before)
    old, new = ids(first), ids(second)
    assert [row for row in new if row not in old] == [f"week:{row}" for row in range(301, 321)]
    kept = of([row for row in new if row in old])
    by_priority = np.argsort(priorities(1, "week", of(old)))
    assert set(kept) == set(of(old)[by_priority[: MOST - 20]])
    assert new == [f"week:{row}" for row in sorted(of(new))]
    assert (second.rows, second.news, second.known, len(second.pool)) == (320, 20, {"week": 300}, MOST)
    assert second.pool.texts(range(MOST)) == [(f"week text {row - 1}", None) for row in of(new)]


def test_of_many_new_rows_a_sample_is_taken_and_some_old_rows_stay(source: Source, tmp_path: Path) -> None:
    first, before = opened(tmp_path / "one", [source(0, 300)])
    second, again = opened(tmp_path / "two", [source(300, 700)], before)
    rows = of(ids(second))
    expected = np.argsort(priorities(1, "week", np.arange(301, 701)))[:MOST] + 301
    assert set(rows[rows > 300]) == set(expected)
    assert set(rows[rows <= 300]) < set(of(ids(first)))
    assert (rows <= 300).sum() == MOST // 10
    third, _ = opened(tmp_path / "three", [source(700, 710)], again)
    rows = of(ids(third))
    # A row that the run before has seen, and did not draw, is not new.
    assert rows[rows > 700].tolist() == list(range(701, 711))
    assert set(rows[rows <= 700]) <= set(of(ids(second)))
    assert (third.rows, third.news, third.known) == (710, 10, {"week": 700})


def test_a_whole_pool_stays_whole_and_becomes_a_sample_when_it_outgrows(source: Source, tmp_path: Path) -> None:
    _, before = opened(tmp_path / "one", [source(0, 30)])
    second, again = opened(tmp_path / "two", [source(30, 45)], before)
    assert (ids(second), second.known, second.is_sample) == ([f"week:{row}" for row in range(1, 46)], None, False)
    third, _ = opened(tmp_path / "three", [source(45, 60)], again)
    rows = of(ids(third))
    assert rows[-15:].tolist() == list(range(46, 61))
    assert (len(rows), third.rows, third.news, third.known) == (MOST, 60, 15, {"week": 45})


def test_rows_that_are_labelled_now_are_no_old_ones(source: Source, tmp_path: Path) -> None:
    first, before = opened(tmp_path / "one", [source(0, 300)])
    out = [text for text, _ in first.pool.texts([0, 7])]
    grown = source(300, 310)
    second, _ = opened(tmp_path / "two", [grown], before, out=out)
    assert not {ids(first)[0], ids(first)[7]} & set(ids(second))
    # One that was not drawn is among the labelled texts, too: all is counted.
    third, _ = opened(tmp_path / "three", [grown], before, out=[*out, *texts("week", 0, 300)])
    assert (second.rows, second.excluded, third.rows, third.excluded) == (308, 2, 10, 300)
    assert ids(third) == [f"week:{row}" for row in range(301, 311)]


def test_another_source_under_an_old_name_is_new(source: Source, tmp_path: Path) -> None:
    _, before = opened(tmp_path / "one", [source(0, 300), csv(tmp_path / "more.csv", texts("more", 0, 100))])
    other = csv(tmp_path / "more.csv", texts("other", 0, 30))
    second, _ = opened(tmp_path / "two", [source(300, 305), other], before)
    assert [row for row in ids(second) if row.startswith("more:")] == [f"more:{row}" for row in range(1, 31)]
    assert (second.known, second.news, second.rows) == ({"week": 300}, 35, 335)
    spans = second.pool.spans()
    assert list(spans) == ["week", "more"]
    assert [text for text, _ in second.pool.texts(spans["more"])] == texts("other", 0, 30)


def test_old_rows_that_are_gone_from_a_file_are_not_taken_over(tmp_path: Path) -> None:
    first, before = opened(tmp_path / "one", [csv(tmp_path / "week.csv", texts("week", 0, 300))])
    shorter = csv(tmp_path / "week.csv", texts("week", 0, 100))
    new = csv(tmp_path / "new.csv", texts("new", 0, 5))
    second, _ = opened(tmp_path / "two", [shorter, new], before)
    assert of(ids(second)).max() <= 100
    assert set(of(ids(second))) == {row for row in of(ids(first)) if row <= 100}
    assert (second.rows, second.news) == (105, 5)


def test_only_new_shards_of_a_corpus_are_read(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "week", texts("week", 0, 300))
    _, before = opened(tmp_path / "one", [folder])
    corpus(folder, texts("week", 300, 310))
    (folder / "shards" / "000001.parquet").unlink()
    second, _ = opened(tmp_path / "two", [folder], before)
    assert (second.rows, second.news, len(second.pool)) == (310, 10, MOST)


def test_a_pool_is_found_again_and_made_anew_for_another_limit(source: Source, tmp_path: Path) -> None:
    folder = source(0, 300)
    first, before = opened(tmp_path / "one", [folder])
    made = (tmp_path / "one" / POOL_FILE).stat().st_ino
    assert ids(opened(tmp_path / "one", [folder])[0]) == ids(first)
    assert (tmp_path / "one" / POOL_FILE).stat().st_ino == made
    assert len(opened(tmp_path / "one", [folder], most=60)[0].pool) == 60
    grown = source(300, 310)
    second, _ = opened(tmp_path / "two", [grown], before)
    made = (tmp_path / "two" / POOL_FILE).stat().st_ino
    again, _ = opened(tmp_path / "two", [grown], before)
    assert (ids(again), again.known, again.news) == (ids(second), second.known, second.news)
    assert (tmp_path / "two" / POOL_FILE).stat().st_ino == made


def test_what_an_earlier_version_wrote_is_kept_and_gone_on_from(source: Source, tmp_path: Path) -> None:
    """It took all rows, and wrote down less."""
    folder = source(0, 300)
    whole, _ = opened(tmp_path / "one", [folder], most=1000)
    path = tmp_path / "one" / RECORD_FILE
    record = json.loads(path.read_text("utf-8"))
    counts = {key: record["counts"][key] for key in ("skipped_blank", "excluded", "per_source")}
    path.write_text(json.dumps({"made_of": record["made_of"], "sha256": record["sha256"], "counts": counts}), "utf-8")
    found, before = opened(tmp_path / "one", [folder])
    assert (ids(found), found.rows, found.sources["week"].last) == (ids(whole), 300, 300)
    second, _ = opened(tmp_path / "two", [source(300, 310)], before)
    assert (second.rows, second.news, len(second.pool), second.known) == (310, 10, MOST, {"week": 300})


def test_a_damaged_pool_or_record_says_nothing(tmp_path: Path) -> None:
    _, before = opened(tmp_path / "one", [csv(tmp_path / "week.csv", texts("week", 0, 300))])
    digests = {f"unlabelled/{name}": value for name, value in before.contents.items()}
    path = tmp_path / "one" / POOL_FILE
    path.write_bytes(path.read_bytes()[:-9] + b"otherbyte")
    assert before_of(tmp_path / "one", digests) is None
    assert before_of(tmp_path / "none", digests) is None


def test_a_record_of_which_a_digit_was_changed_is_made_anew(tmp_path: Path) -> None:
    sources = [csv(tmp_path / "week.csv", texts("week", 0, 300))]
    _, before = opened(tmp_path / "one", sources)
    path = tmp_path / "one" / RECORD_FILE
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"last": 300', b'"last": 301'))
    assert path.read_bytes() != whole
    assert before_of(tmp_path / "one", {f"unlabelled/{name}": value for name, value in before.contents.items()}) is None
    opened(tmp_path / "one", sources)
    assert path.read_bytes() == whole
