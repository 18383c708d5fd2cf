"""Nothing gets its name before it is on the disk, and no name is counted on before it is there too."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from listflow.data.files import replacing
from listflow.data.ingest import ingest
from listflow.data.pool import build_corpus
from listflow.data.task import Columns


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
    build_corpus([str(tmp_path / "x.csv")], Columns(), is_pair=False, out=tmp_path / "rows.arrow")
    assert (journal.moved, journal.unsynced_names) == (["rows.arrow"], set())


def test_a_corpus_is_on_the_disk_before_its_manifest_names_it(tmp_path: Path, journal: Journal) -> None:
    source, folder = tmp_path / "x.csv", tmp_path / "tickets"
    source.write_text("text\na\nb\nc\n")
    ingest(folder, [str(source)], Columns(), rows_a_shard=2)
    assert journal.moved == ["kept-out.txt", "000001.parquet", "000002.parquet", "manifest.json"]
    assert journal.unsynced_names == set()
