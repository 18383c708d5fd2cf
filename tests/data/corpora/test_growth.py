"""A server hears of every growth of a corpus once, whenever it was away and whenever an ingest was killed."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from listflow.data.corpora.growth import TOLD, Growth, tell_growth
from listflow.data.corpora.ingest import ingest
from listflow.data.errors import InputError
from listflow.data.rows import read_rows
from listflow.data.shards import read_manifest
from listflow.data.task import Columns


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tickets"


def add(folder: Path, *texts: str, rows_a_shard: int = 2) -> None:
    source = folder.parent / "source.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    ingest(folder, [str(source)], Columns(), rows_a_shard=rows_a_shard)


def told(folder: Path) -> list[Growth]:
    heard: list[Growth] = []
    tell_growth(folder, heard.append)
    return heard


def counts(growths: list[Growth]) -> list[tuple[int, int]]:
    return [(growth.added, growth.rows) for growth in growths]


def away(growth: Growth) -> None:
    raise InputError("no server answers.")


def test_every_growth_is_told_once(folder: Path) -> None:
    add(folder, "one", "two", "three")
    assert counts(told(folder)) == [(3, 3)]
    assert told(folder) == []
    add(folder, "one")
    assert told(folder) == []
    add(folder, "four")
    assert counts(told(folder)) == [(1, 4)]


def test_what_a_server_did_not_take_is_told_again_under_the_same_id(folder: Path) -> None:
    heard: list[Growth] = []

    def lost(growth: Growth) -> None:
        heard.append(growth)
        away(growth)

    add(folder, "one")
    for _ in range(2):
        with pytest.raises(InputError):
            tell_growth(folder, lost)
    add(folder, "two")
    again = told(folder)
    assert counts(again) == [(1, 1), (1, 2)]
    assert heard == [again[0], again[0]]
    assert again[0].id != again[1].id


def test_a_corpus_of_an_earlier_version_has_no_news_before_it_grows(folder: Path) -> None:
    add(folder, "one")
    (folder / TOLD).unlink()
    assert told(folder) == []
    add(folder, "two")
    assert counts(told(folder)) == [(1, 2)]


def test_a_corpus_that_was_restored_tells_what_comes_in_then(folder: Path) -> None:
    add(folder, "one")
    older = (folder / "manifest.json").read_bytes()
    add(folder, "two")
    told(folder)
    (folder / "manifest.json").write_bytes(older)
    (folder / "shards" / "000002.parquet").unlink()
    add(folder, "three")
    assert counts(told(folder)) == [(1, 2)]


def test_the_same_files_in_a_new_corpus_of_that_name_are_news(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(folder, "one")
    first = told(folder)
    folder.rename(folder.with_name("gone"))
    time.sleep(1.1)  # shards know the second in which they were made
    add(folder, "one")
    second = told(folder)
    assert counts(first) == counts(second)
    assert first[0].id != second[0].id


def test_half_a_line_is_no_step(folder: Path) -> None:
    add(folder, "one")
    with (folder / TOLD).open("a") as file:
        file.write("told 9")
    assert counts(told(folder)) == [(1, 1)]
    assert told(folder) == []
    assert (folder / TOLD).read_text() == "from 0\ntold 9\ntelling 1\ntold 1\n"


def killed(folder: Path, texts: list[str], heard: Path, delay: float) -> bool:
    """Whether a process that adds ``texts`` and tells it to the file ``heard`` was killed after ``delay`` seconds."""

    def tell(growth: Growth) -> None:
        with heard.open("a") as file:
            file.write(f"{growth.id} {growth.added} {growth.rows}\n")

    child = os.fork()
    if child == 0:
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        add(folder, *texts, rows_a_shard=20)
        tell_growth(folder, tell)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.long)])
def test_kills_lose_no_row_and_no_notice(folder: Path, tmp_path: Path, kills: int) -> None:
    """Each is followed by an ingest that ends: of the same rows, then of others."""
    heard, moments, count, number = tmp_path / "heard.txt", random.Random(5), 0, 0
    began = time.monotonic()
    assert not killed(folder, ["first"], heard, 60)
    texts, seconds = ["first"], 2 * (time.monotonic() - began)
    while count < kills:
        more = [f"text {number} {row}" for row in range(200)]
        count += killed(folder, more, heard, moments.uniform(0, seconds))
        assert not killed(folder, more, heard, 60)
        texts, number = [*texts, *more], number + 1
    assert [row.text for row in read_rows(str(folder), Columns(), is_pair=False)] == texts
    growths = {line.split()[0]: line.split()[1:] for line in heard.read_text().splitlines()}
    assert len({tuple(line.split()) for line in heard.read_text().splitlines()}) == len(growths)
    assert sum(int(added) for added, _ in growths.values()) == read_manifest(folder).rows == len(texts)
    rows = [int(rows) for _, rows in growths.values()]
    assert rows == sorted(set(rows))
