"""Nothing gets its name before it is on the disk, and no name is counted on before it is there too."""

from __future__ import annotations

import errno
import os
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import listflow.data.corpora.ingest
import listflow.data.pools.record
from listflow.data.corpora.ingest import ingest
from listflow.data.errors import InputError
from listflow.data.files import FULL, REFUSED, replacing, replacing_shared, storing
from listflow.data.pools.inputs import open_inputs
from listflow.data.pools.sample import build_pool
from listflow.data.rows import Unlabelled
from listflow.data.task import Columns, Task


@dataclass
class Journal:
    """What was synced, as it was then, and the folders that have names which were not."""

    synced: dict[int, tuple[int, int]] = field(default_factory=dict)
    unsynced_names: set[Path] = field(default_factory=set)
    moved: list[str] = field(default_factory=list)

    def fsync(self, number: int) -> None:
        found = os.fstat(number)
        self.synced[found.st_ino] = (found.st_mtime_ns, found.st_size)
        self.unsynced_names = {folder for folder in self.unsynced_names if folder.stat().st_ino != found.st_ino}

    def replace(self, aside: Path, path: Path) -> None:
        found = aside.stat()
        assert self.synced.get(found.st_ino) == (found.st_mtime_ns, found.st_size), path
        assert self.unsynced_names <= {path.parent}, path
        self.unsynced_names.add(path.parent)
        self.moved.append(path.name)
        os.rename(aside, path)


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> Journal:
    journal = Journal()
    monkeypatch.setattr(os, "fsync", journal.fsync)
    monkeypatch.setattr(os, "replace", journal.replace)
    return journal


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, journal: Journal) -> None:
    with replacing(tmp_path / "a") as aside:
        aside.write_text("new")
    assert (tmp_path / "a").read_text() == "new"
    assert (journal.moved, journal.unsynced_names) == (["a"], set())


def test_what_was_not_filled_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def half() -> None:
        with replacing(tmp_path / "a") as aside:
            aside.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_the_rows_of_a_run_are_on_the_disk(tmp_path: Path, journal: Journal) -> None:
    (tmp_path / "x.csv").write_text("text\na\n")
    build_pool(Unlabelled((str(tmp_path / "x.csv"),), Columns(), False), tmp_path / "rows.arrow")
    assert (journal.moved, journal.unsynced_names) == (["rows.arrow"], set())


def test_a_corpus_is_on_the_disk_before_its_manifest_names_it(tmp_path: Path, journal: Journal) -> None:
    source, folder = tmp_path / "x.csv", tmp_path / "tickets"
    source.write_text("text\na\nb\nc\n")
    ingest(folder, [str(source)], Columns(), rows_a_shard=2)
    assert journal.moved == ["kept-out.txt", "000001.parquet", "000002.parquet", "manifest.json"]
    assert journal.unsynced_names == set()


def test_one_writer_finds_its_own_half_file_and_many_do_not_meet(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    with replacing(a) as aside, replacing_shared(b) as one, replacing_shared(b) as other:
        assert aside == tmp_path / "a.part"
        assert one != other
        assert all(path.parent == tmp_path and path.match(".b.*.part") for path in (one, other))
        for path in (aside, one, other):
            path.write_text(path.name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert (tmp_path / "b").read_text() == one.name, "the last one to end"


def test_a_link_where_a_half_file_would_be_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "a.part").symlink_to(tmp_path / "kept")
    with replacing(tmp_path / "a") as aside:
        aside.write_text("new")
    assert [(path.name, path.read_text()) for path in sorted(tmp_path.iterdir())] == [("a", "new"), ("kept", "kept")]


@pytest.mark.parametrize("number", sorted(REFUSED))
def test_where_nothing_can_be_stored(tmp_path: Path, number: int) -> None:
    def refused() -> None:
        with replacing_shared(tmp_path / "a"):
            raise OSError(number, "other words")

    with pytest.raises(InputError) as raised:
        refused()
    assert str(raised.value) == (
        f"cannot write to {tmp_path} ({os.strerror(number)}); free some space or choose another folder, then give the "
        "same command again."
    )
    assert isinstance(raised.value.__cause__, OSError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), OSError("no number")])
def test_other_trouble_is_not_called_a_lack_of_room(tmp_path: Path, error: OSError) -> None:
    with pytest.raises(OSError) as raised, storing(tmp_path):  # noqa: PT011
        raise error
    assert raised.value is error
    with pytest.raises(PermissionError), storing(tmp_path, FULL):
        raise PermissionError(errno.EACCES, "")


REASONS: list[tuple[Exception, str]] = [
    (OSError(errno.ENOSPC, "other words"), "No space left on device"),
    (OSError(errno.EIO, "other words"), "Input/output error"),
    (OSError("no number"), "no number"),
]


@pytest.mark.parametrize(("error", "reason"), [*REASONS, (sqlite3.OperationalError("disk I/O"), "disk I/O")])
def test_where_no_corpus_can_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def refused(*_: object) -> None:
        raise error

    monkeypatch.setattr(listflow.data.corpora.ingest, "settle", refused)
    (tmp_path / "x.csv").write_text("text\na\n")
    with pytest.raises(InputError) as raised:
        ingest(tmp_path / "tickets", [str(tmp_path / "x.csv")], Columns())
    assert str(raised.value) == (
        f"{tmp_path / 'tickets'}: nothing can be stored there ({reason}); free some space or mend its permissions. The "
        "corpus is as it was."
    )
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(("error", "reason"), REASONS)
def test_where_no_unlabelled_rows_can_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(listflow.data.pools.record, "build_pool", refused)
    (tmp_path / "few.csv").write_text("text,label\na,good\nb,bad\n")
    (tmp_path / "x.csv").write_text("text\nc\n")
    with pytest.raises(InputError) as raised:
        open_inputs(
            Task.model_validate({"name": "t", "template": "{text} {mask}", "labels": ["good", "bad"]}),
            str(tmp_path / "few.csv"), [str(tmp_path / "x.csv")], None,
            columns=None, shots=None, balanced=True, seed=1, folder=tmp_path / "run",
        )  # fmt: skip
    assert str(raised.value) == (
        f"{tmp_path / 'run'}: the unlabelled rows cannot be stored there ({reason}); free some space or choose another "
        "folder with --run-dir."
    )
    assert raised.value.__cause__ is error
