"""Folders and files that appear whole or not at all, and what is said of damaged ones."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

import pytest
import torch

from listflow.data.errors import InputError
from listflow.pipeline.storage.checkpoint import load_tensors, new_folder, read_json, save_tensors, verified, write_json

DIGEST = hashlib.sha256(b"").hexdigest()


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "stage", {}) as aside:
        shutil.copy(__file__, aside / "missing" / "half")
    assert not (tmp_path / "stage").exists()
    with new_folder(tmp_path / "stage", {"round": 3}) as aside:
        (aside / "whole").write_text("x")
    manifest = verified(tmp_path / "stage")
    assert manifest is not None
    assert manifest["round"] == 3
    (tmp_path / "stage" / "whole").write_text("y")
    assert verified(tmp_path / "stage") is None


NOT_BELIEVED: list[object] = [
    {}, {"/dev/zero": "x"}, {"../other": DIGEST}, {"a/../../other": DIGEST}, {"pipe": DIGEST}, {"zero": DIGEST}, [],
    None,
]  # fmt: skip


@pytest.mark.parametrize("files", NOT_BELIEVED)
def test_a_manifest_speaks_of_plain_files_of_its_folder_or_is_not_believed(tmp_path: Path, files: object) -> None:
    """None of them is read to its end, which some do not have."""
    (tmp_path / "other").write_bytes(b"")
    folder = tmp_path / "stage"
    folder.mkdir()
    (folder / "whole").write_bytes(b"")
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    write_json(folder / "manifest.json", {"format": 1, "files": {"whole": DIGEST}})
    assert verified(folder) is not None
    write_json(folder / "manifest.json", {"format": 1, "files": files})
    assert verified(folder) is None


def test_a_record_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    assert verified(tmp_path) is None
    with pytest.raises(InputError, match=r"manifest\.json is no plain file; restore it from a copy\.$"):
        read_json(tmp_path / "manifest.json")


def test_a_record_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"config\.json is missing; is .*file the folder of a run\?$"):
        read_json(tmp_path / "file" / "config.json")

    def refusing(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refusing)
    with pytest.raises(InputError, match=r"file cannot be read \(Permission denied\); check its permissions\.$"):
        read_json(tmp_path / "file")


def test_a_record_of_a_hundred_thousand_lists_within_each_other_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    assert verified(tmp_path) is None
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        read_json(tmp_path / "manifest.json")


def test_truncated_weights_are_one_clear_sentence(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"a": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"weights\.safetensors is damaged or cut short"):
        load_tensors(path)


def test_a_full_disk_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No space left on device"), new_folder(tmp_path / "stage", {}):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert verified(tmp_path / "stage") is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_weights_on_a_really_full_disk_are_one_clear_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("listflow.data.files.created", lambda path: path.symlink_to("/dev/full"))
    with pytest.raises(InputError, match="No space left on device"):
        save_tensors(tmp_path / "weights.safetensors", {"a": torch.ones(1_000_000)})
    assert not (tmp_path / "weights.safetensors").exists()
