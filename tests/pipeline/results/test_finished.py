"""What final/ says of the views of a run, and of the backbone that they need."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from finished_views import believe, sentence_files, two_views

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import load_backbone
from listflow.pipeline.backbone.text_face import text_face_of
from listflow.pipeline.results.finished import Finished
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.checkpoint import read_json

TEXTS = ["w1 w2 fine", "poor w3"]


@pytest.fixture(scope="module")
def run(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two views, on a sentence encoder whose makers say how it is pooled."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(tiny_files["backbone"], folder / "backbone")
    sentence_files(folder / "backbone", {"pooling_mode_max_tokens": True}, limits={"max_seq_length": 12})
    files = tiny_files | {"backbone": folder / "backbone"}
    self_train(build_config("fast", two_views(files, folder / "run"), {"rounds": {"count": 1}}))
    believe(folder / "run", prompt=0.5, text=0.5)
    shutil.rmtree(folder / "run" / "final")
    self_train(build_config("fast", two_views(files, folder / "run"), {"rounds": {"count": 1}}))
    return folder / "run"


def test_the_card_names_the_text_face_and_its_limits(run: Path) -> None:
    card = read_json(run / "final" / "model.json")
    backbone = load_backbone(str(run.parent / "backbone"), "fp32", "cpu")
    assert card["backbone"]["text"] == text_face_of(backbone, 64).checksum()
    assert [(view["face"], view["max_length"], view["weight"]) for view in card["views"]] == [
        ("prompt", 64, 0.5), ("text", 12, 0.5)
    ]  # fmt: skip
    assert Finished.open(run).reads_text


def test_a_changed_pooling_file_is_refused_and_the_old_one_welcome_again(run: Path) -> None:
    before, path = Predictor.open(run).probabilities(TEXTS), run.parent / "backbone" / "1_Pooling" / "config.json"
    said = path.read_text()
    path.write_text('{"pooling_mode_cls_token": true}')
    with pytest.raises(InputError, match=r"makes other sentence embeddings than .*; restore its sentence files"):
        Predictor.open(run)
    path.write_text(said)
    assert (Predictor.open(run).probabilities(TEXTS) == before).all()


@pytest.mark.parametrize(("view", "reads_text"), [("prompt", False), ("text", True)])
def test_a_view_without_a_say_is_not_shipped(run: Path, tmp_path: Path, view: str, reads_text: bool) -> None:
    """Nor does a change of what it alone reads matter."""
    shutil.copytree(run.parent, tmp_path / "all")
    moved = tmp_path / "all" / "run"
    config = read_json(moved / "config.json")["config"]
    believe(moved, **({"prompt": 0.0, "text": 0.0} | {view: 1.0}))
    config["run_dir"] = str(moved)
    self_train(build_config("fast", config))
    card = read_json(moved / "final" / "model.json")
    assert [each["face"] for each in card["views"]] == [view]
    assert ("text" in card["backbone"]) == Finished.open(moved).reads_text == reads_text
    before = Predictor.open(moved).probabilities(TEXTS)
    if not reads_text:
        (run.parent / "backbone" / "modules.json").rename(run.parent / "backbone" / "away.json")
        assert (Predictor.open(moved).probabilities(TEXTS) == before).all()
        (run.parent / "backbone" / "away.json").rename(run.parent / "backbone" / "modules.json")
