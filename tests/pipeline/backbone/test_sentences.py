"""Vectors are computed once: kept, copied where an earlier run has them, made again where they are damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import sentences, tiny_backbone, write_jsonl

from listflow.data.pool import Pool
from listflow.data.pools.sample import build_pool
from listflow.data.rows import Unlabelled
from listflow.data.task import Columns
from listflow.pipeline.backbone import sentences as kept_sentences
from listflow.pipeline.backbone.batch import Encoded
from listflow.pipeline.backbone.pooling import Pooling
from listflow.pipeline.backbone.prompt import Text
from listflow.pipeline.backbone.sentences import VECTORS, with_vectors
from listflow.pipeline.backbone.text_face import TextFace
from listflow.pipeline.storage.checkpoint import verified

ROWS: list[Text] = [(row["text"], None) for row in sentences(10, 3, labelled=False)]


class Counted(TextFace):
    """A text face that says how many texts it read."""

    read = 0

    def embed(self, encoded: Encoded) -> torch.Tensor:
        self.read += len(encoded)
        return super().embed(encoded)


@pytest.fixture
def face(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """One that reads pieces of four texts."""
    monkeypatch.setattr(kept_sentences, "TEXTS_A_PIECE", 4)
    backbone = tiny_backbone()
    return Counted(backbone.untouched, backbone.tokenizer, Pooling(), 32)


def values(encoded: Encoded) -> np.ndarray:
    assert encoded.features is not None
    return np.array(encoded.features.values)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_they_are_kept_and_read_from_there(face: Counted, tmp_path: Path) -> None:
    told: list[int] = []
    found = with_vectors(ROWS, face, False, tmp_path / "v", "it", told.append)
    assert (face.read, told, len(found)) == (0, [], 10)  # nobody has asked for one yet
    assert np.allclose(values(found), face.vectors(ROWS).numpy(), atol=1e-6)
    assert (face.read, told) == (20, [4, 4, 2])
    face.read, before = 0, bytes_of(tmp_path / "v")
    again = with_vectors(ROWS, face, False, tmp_path / "v", "it")
    assert np.array_equal(values(again), values(found))
    assert face.read == 0
    assert bytes_of(tmp_path / "v") == before
    logits_in = again.batch([3, 1])
    assert logits_in.hidden is not None
    assert np.array_equal(logits_in.hidden[:, 0].numpy(), values(found)[[3, 1]])


@pytest.mark.parametrize("other", ["made by", "texts", "pairs"])
def test_what_decides_them_otherwise_makes_them_again(face: Counted, tmp_path: Path, other: str) -> None:
    values(with_vectors(ROWS, face, False, tmp_path / "v", "it"))
    face.read = 0
    if other == "made by":
        values(with_vectors(ROWS, face, False, tmp_path / "v", "another"))
    elif other == "texts":
        values(with_vectors([*ROWS[:-1], ("w1 w2", None)], face, False, tmp_path / "v", "it"))
    else:
        pairs: list[Text] = [(text, "") for text, _ in ROWS]
        assert values(with_vectors(pairs, face, True, tmp_path / "v", "it")).shape == (10, 97)
    assert face.read == (20 if other == "pairs" else 10)


def test_a_text_and_its_pair_are_not_taken_for_another_split_of_the_same_letters(face: Counted, tmp_path: Path) -> None:
    first = values(with_vectors([("w1 w2", "w3")], face, True, tmp_path / "v", "it"))
    second = values(with_vectors([("w1", "w2 w3")], face, True, tmp_path / "v", "it"))
    assert not np.allclose(first, second)


def test_what_earlier_runs_have_is_copied(face: Counted, tmp_path: Path) -> None:
    values(with_vectors(ROWS, face, False, tmp_path / "old", "it"))
    face.read = 0
    grown: list[Text] = [*ROWS[:8], ("w9 new", None), ("w8 newer", None), ("w7", None)]
    told: list[int] = []
    found = with_vectors(grown, face, False, tmp_path / "new", "it", told.append, [tmp_path / "old"])
    values(found)
    assert (face.read, told) == (3, [4, 4, 3])  # the last piece alone is another one
    values(with_vectors(grown, face, False, tmp_path / "alone", "it"))
    assert bytes_of(tmp_path / "new") == bytes_of(tmp_path / "alone")
    assert len(found) == 11
    face.read = 0
    values(with_vectors(grown, face, False, tmp_path / "other", "by another version", earlier=[tmp_path / "old"]))
    assert face.read == 11


@pytest.mark.parametrize("damage", ["cut", "gone", "manifest"])
def test_a_damaged_folder_is_made_again_and_never_copied_from(face: Counted, tmp_path: Path, damage: str) -> None:
    values(with_vectors(ROWS, face, False, tmp_path / "v", "it"))
    before, path = bytes_of(tmp_path / "v"), tmp_path / "v" / VECTORS
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-4])
    elif damage == "gone":
        path.unlink()
    else:
        (tmp_path / "v" / "manifest.json").write_text("{")
    face.read = 0
    values(with_vectors(ROWS, face, False, tmp_path / "new", "it", earlier=[tmp_path / "v", tmp_path / "nowhere"]))
    assert face.read == 10
    values(with_vectors(ROWS, face, False, tmp_path / "v", "it"))
    assert face.read == 20
    assert bytes_of(tmp_path / "v") == before == bytes_of(tmp_path / "new")
    assert verified(tmp_path / "v") is not None


def test_a_folder_of_rows_of_another_width_is_not_copied_from(face: Counted, tmp_path: Path) -> None:
    """As where the run that goes on from is of pairs: its keys are others, and its file may not even divide."""
    pairs: list[Text] = [(text, "w1") for text, _ in ROWS[:3]]
    values(with_vectors(pairs, face, True, tmp_path / "pairs", "it"))
    found = with_vectors(ROWS, face, False, tmp_path / "v", "it", earlier=[tmp_path / "pairs"])
    assert np.allclose(values(found), face.vectors(ROWS).numpy(), atol=1e-6)


def test_a_pool_is_read_piece_by_piece(face: Counted, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", sentences(10, 3, labelled=False))
    build_pool(Unlabelled((str(source),), Columns(), False), tmp_path / "pool.arrow")
    pool = Pool(tmp_path / "pool.arrow")
    found = with_vectors(pool, face, False, tmp_path / "v", "it")
    assert len(found) == len(pool) == 10
    assert np.allclose(values(found), face.vectors(pool.texts(list(range(10)))).numpy(), atol=1e-6)
