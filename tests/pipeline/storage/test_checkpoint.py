"""Folders and files that appear whole or not at all, and what is said of damaged ones."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
import torch

from listflow.data.errors import InputError
from listflow.pipeline.storage.checkpoint import load_tensors, new_folder, save_tensors, verified


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
