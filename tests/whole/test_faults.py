"""What a disk, a clock, a hand or another process can do to a run: a clear sentence, or the same bytes after all."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from interruptions import Interrupted, hashed
from pictures import with_pictures
from tiny import sentences, tiny_overlay, write_jsonl

from listflow.data.corpora.ingest import ingest
from listflow.data.errors import InputError
from listflow.data.task import Columns
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.record import load_config
from listflow.pipeline.run.run import Progress
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.checkpoint import read_json, single_writer, verified, write_json
from listflow.pipeline.storage.retention import removals

DAY = 86_400.0


@pytest.fixture(scope="module")
def whole(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with with_pictures():
        self_train(build_config("fast", tiny_overlay(tiny_files, folder)))
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own; skipped where this user may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def remount(disk: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", disk], check=True)


def test_a_full_disk_is_a_sentence_and_more_room_ends_with_the_same_bytes(
    drawn: None, tiny_files: dict[str, Path], whole: Path, disk: Path
) -> None:
    config = build_config("fast", tiny_overlay(tiny_files, disk / "run"), {"checkpoint_seconds": 0})
    needed = sum(-(-path.stat().st_size // 4096) * 4 for path in whole.rglob("*"))
    refusals = []
    for size in range(16, needed * 3 // 4, needed // 8):
        remount(disk, f"size={size}k")
        with pytest.raises(InputError) as error:
            self_train(config)
        refusals.append(str(error.value))
    assert len(refusals) > 3
    assert all("No space left on device" in words for words in refusals)
    remount(disk, "size=64m")
    self_train(config)
    assert hashed(disk / "run") == hashed(whole)


def test_a_disk_that_cannot_be_written_is_a_sentence(tiny_files: dict[str, Path], disk: Path) -> None:
    config = build_config("fast", tiny_overlay(tiny_files, disk / "run"))
    remount(disk, "size=64m,ro")
    with pytest.raises(InputError, match=r"cannot write to .*\(Read-only file system\)"):
        self_train(config)
    remount(disk, "rw")
    self_train(config)
    remount(disk, "ro")
    with pytest.raises(InputError, match="cannot write to"):
        self_train(config)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def parts(run: Path) -> list[Path]:
    """Every file of a run that work was put into, those that say so included."""
    asked = {run / "config.json", run / "inputs.json", run / ".lock"}
    return [path for path in sorted(run.rglob("*")) if path.is_file() and path not in asked and path.stat().st_size]


def test_a_flipped_bit_in_every_file_is_mended(
    drawn: None, tiny_files: dict[str, Path], whole: Path, tmp_path: Path
) -> None:
    config = build_config("fast", tiny_overlay(tiny_files, tmp_path / "run"))
    self_train(config)
    for path in parts(tmp_path / "run"):
        flip(path)
    self_train(config)
    assert hashed(tmp_path / "run") == hashed(whole)


@pytest.mark.long
def test_a_flipped_bit_in_any_file_is_mended(
    drawn: None, tiny_files: dict[str, Path], whole: Path, tmp_path: Path
) -> None:
    config = build_config("fast", tiny_overlay(tiny_files, tmp_path / "run"))
    self_train(config)
    for path in parts(tmp_path / "run"):
        flip(path)
        self_train(config)
        assert hashed(tmp_path / "run") == hashed(whole), path


@pytest.mark.parametrize("jump", [-DAY, DAY])
def test_a_clock_that_jumps_changes_no_byte(
    drawn: None, tiny_files: dict[str, Path], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    run, real = tmp_path / "run", time.time
    config = build_config("fast", tiny_overlay(tiny_files, run), {"checkpoint_seconds": 0})

    def jump_and_stop(now: Progress) -> None:
        if (now.round, now.phase) == (1, "reweighted"):
            monkeypatch.setattr("time.time", lambda: real() + jump)
            raise Interrupted

    with pytest.raises(Interrupted):
        self_train(config, jump_and_stop)
    for path in (run / "round-00").rglob("*"):
        os.utime(path, (real() - jump, real() - jump))
    assert not removals(tmp_path, 0.5)
    self_train(config)
    assert hashed(run) == hashed(whole)
    os.utime(run / "report.json", (real() + DAY, real() + DAY))
    assert not removals(tmp_path, 0, now=real())  # a report from the future is not old


def test_an_edited_shard_is_named_before_anything_is_trained(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    corpus, rows = tmp_path / "tickets", write_jsonl(tmp_path / "rows.jsonl", sentences(60, 2, labelled=False))
    ingest(corpus, [str(rows)], Columns())
    shard = corpus / "shards" / "000001.parquet"
    before = shard.read_bytes()
    flip(shard)
    config = build_config("fast", tiny_overlay(tiny_files | {"unlabelled": corpus}, tmp_path / "run"))
    with pytest.raises(InputError, match=r"000001\.parquet is not what was ingested"):
        self_train(config)
    assert not (tmp_path / "run" / "config.json").exists()
    shard.write_bytes(before)
    self_train(config)
    assert verified(tmp_path / "run" / "final")


def test_the_lock_of_a_dead_process_is_none(tmp_path: Path) -> None:
    holder = (
        "import os, signal, sys; from pathlib import Path\n"
        "from listflow.pipeline.storage.checkpoint import single_writer\n"
        "with single_writer(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", holder, str(tmp_path / "run")], check=False)
    assert done.returncode == -9
    assert (tmp_path / "run" / ".lock").exists()
    with single_writer(tmp_path / "run"):
        pass


@pytest.mark.parametrize("file", ["config.json", "round-01/student/manifest.json", "final/manifest.json"])
def test_a_newer_format_is_refused_and_left_alone(
    tiny_files: dict[str, Path], tmp_path: Path, whole: Path, file: str
) -> None:
    run = tmp_path / "run"
    config = build_config("fast", tiny_overlay(tiny_files, run))
    self_train(config)
    write_json(run / file, read_json(run / file) | {"format": 2})
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="newer version of listflow"):
        self_train(config)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_backbone_beside_the_user_is_found_from_elsewhere(
    tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = tiny_overlay(tiny_files, tmp_path / "run")
    overlay["backbone"] = {"name": tiny_files["backbone"].name, "precision": "fp32", "cache_dir": "kept"}
    monkeypatch.chdir(tiny_files["backbone"].parent)
    self_train(build_config("fast", overlay))
    monkeypatch.chdir(tmp_path)
    stored = load_config(tmp_path / "run").backbone
    assert (stored.name, stored.cache_dir) == (
        str(tiny_files["backbone"]), str(tiny_files["backbone"].parent / "kept"),
    )  # fmt: skip
    with open_run(load_config(tmp_path / "run")):
        pass
    assert Predictor.open(tmp_path / "run").predict(["w1 good"])
