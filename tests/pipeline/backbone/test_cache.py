"""Frozen features: run once per text, kept on disk, made again where they are gone or damaged."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from committees import believe, committee_config
from filelock import FileLock
from tiny import sentences, tiny_backbone, tiny_overlay, write_jsonl
from torch import nn

from listflow.data.task import Task
from listflow.pipeline.backbone import cache, layers
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.cache import content_key, known_spans, pieces_of, values_at, with_features
from listflow.pipeline.backbone.prompt import Prompt, Text
from listflow.pipeline.results.outcome import report_of
from listflow.pipeline.run.feature_cache import forget_oldest, frozen_layers
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train

TOP = {"stage": {"layers": "top:1"}}


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of texts in every pass through frozen layers, as it happens."""
    seen: list[int] = []

    def counted(backbone: object, depth: int) -> nn.Module:
        below = layers.lower(backbone, depth)  # type: ignore[arg-type]
        plain = below.forward
        below.forward = lambda **given: seen.append(len(given["input_ids"])) or plain(**given)  # type: ignore[method-assign,func-returns-value]
        return below

    monkeypatch.setattr(cache, "lower", counted)
    monkeypatch.setattr("listflow.pipeline.model.classifier.lower", counted)
    return seen


def test_every_text_passes_the_frozen_layers_once_in_a_run(
    tiny_files: dict[str, Path], tmp_path: Path, passed: list[int]
) -> None:
    self_train(build_config("fast", tiny_overlay(tiny_files, tmp_path / "run"), TOP))
    assert sum(passed) == 8 + 60 + 20


def test_runs_that_share_a_folder_pass_every_text_once_in_all(
    tiny_files: dict[str, Path], tmp_path: Path, passed: list[int]
) -> None:
    own = tmp_path / "own"
    self_train(build_config("fast", tiny_overlay(tiny_files, own), TOP))
    passed.clear()
    shared = tmp_path / "cache"
    for name, overlay in {"a": {}, "b": {}, "c": {"stage": {"kind": "lora"}, "seed": 5}}.items():
        config = build_config("fast", tiny_overlay(tiny_files, tmp_path / name), TOP, overlay)
        backbone = config.backbone.model_copy(update={"cache_dir": str(shared)})
        self_train(config.model_copy(update={"backbone": backbone}))
        assert not (tmp_path / name / "inputs" / "features").exists()
    assert sum(passed) == 8 + 60 + 20
    student = "round-02/student/weights.safetensors"
    assert (tmp_path / "a" / student).read_bytes() == (own / student).read_bytes()


@pytest.mark.parametrize("shared", [False, True])
def test_a_continued_run_passes_what_is_new(
    tiny_files: dict[str, Path], tmp_path: Path, passed: list[int], monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    monkeypatch.setattr(cache, "TEXTS_A_PIECE", 16)
    backbone = {"backbone": {"cache_dir": str(tmp_path / "cache") if shared else ""}}
    pool = tmp_path / "pool.jsonl"
    files = tiny_files | {"unlabelled": write_jsonl(pool, sentences(60, 2, labelled=False))}
    self_train(build_config("fast", tiny_overlay(files, tmp_path / "old"), TOP, backbone))
    write_jsonl(pool, sentences(60, 2, labelled=False) + sentences(20, 5, labelled=False))
    passed.clear()
    grown = build_config(
        "fast", tiny_overlay(files, tmp_path / "new"), TOP, backbone, {"continues": str(tmp_path / "old")}
    )
    with open_run(grown) as run:
        assert run.corpus.features is not None
        assert not passed  # nothing is read before it is needed
        values = np.array(run.corpus.features.values)
        assert sum(passed) == 80 - 3 * 16
    alone = build_config("fast", tiny_overlay(files, tmp_path / "alone"), TOP)
    with open_run(alone) as run:
        assert run.corpus.features is not None
        np.testing.assert_array_equal(run.corpus.features.values, values)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_a_view_without_a_say_does_not_read_the_pool(
    tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: float
) -> None:
    believe(weight, monkeypatch)
    self_train(committee_config(tiny_files, tmp_path / "run", TOP, {"rounds": {"count": 1}}))
    kept = {path.name for path in (tmp_path / "run" / "inputs" / "features").iterdir()}
    assert kept == {"labelled", "test", "sample"} | ({"corpus"} if weight else set())


def test_the_longest_unused_goes_first(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old", "oldest")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "values.bin").write_bytes(b"x" * 100)
        (tmp_path / name / "manifest.json").write_bytes(b"")
        os.utime(tmp_path / name / "manifest.json", (1000 - age, 1000 - age))
    half_made = tmp_path / ".newest.part"
    shutil.copytree(tmp_path / "oldest", half_made)

    def left() -> set[str]:
        return {folder.name for folder in tmp_path.iterdir() if folder.is_dir()}

    forget_oldest(tmp_path, 250, keep=set())
    assert left() == {"new", "old", half_made.name}
    with FileLock(tmp_path / "new.lock"):
        forget_oldest(tmp_path, 0, keep={"old"})
        assert left() == {"new", "old", half_made.name}
    forget_oldest(tmp_path, 0, keep={"old"})
    assert left() == {"old", half_made.name}


def test_the_key_knows_all_that_decides_the_values() -> None:
    one, other = tiny_backbone(), tiny_backbone(seed=2)
    task = Task(name="t", template="{text} it was {mask} .", labels={"no": "bad", "yes": "good"})
    texts: list[Text] = [("w1 w2 w3 w4 w5 w6 w7 w8 w9", None), ("w4", None)]

    def key(backbone: Backbone = one, depth: int = 1, template: str = task.template, length: int = 32) -> str:
        prompt = Prompt(task.model_copy(update={"template": template}), backbone.tokenizer, length)
        return content_key(prompt.encode(texts), frozen_layers(backbone, depth))

    narrower = tiny_backbone()
    narrower.model.config = copy.deepcopy(narrower.model.config)
    narrower.model.config.num_attention_heads //= 2
    others = [key(other), key(narrower), key(depth=2), key(template="{text} the plot was {mask} ."), key(length=12)]
    assert key() == key(tiny_backbone())
    assert len({key(), *others}) == 6


def test_pieces_that_are_gone_or_damaged_are_computed(tmp_path: Path) -> None:
    backbone, task = tiny_backbone(), Task(name="t", template="{text} {mask} .", labels={"no": "bad", "yes": "good"})
    encoded = Prompt(task, backbone.tokenizer, 32).encode([("w1 w2", None), ("w3", None)])

    def values(name: str, *earlier: Path) -> bytes:
        found = with_features(
            encoded, backbone, 1, tmp_path / name, "layers", lambda rows: None, lambda: earlier
        ).features
        assert found is not None
        return found.values.tobytes()

    expected = values("first")
    known = known_spans([tmp_path / "first"], {piece.key for piece in pieces_of(encoded, "layers")})
    assert known
    (tmp_path / "first" / "pieces.json").write_text("[")
    assert values("second", tmp_path / "first", tmp_path / "never") == expected
    shutil.rmtree(tmp_path / "first")
    assert values_at(next(iter(known.values())), backbone) is None


def test_without_room_a_run_says_so_and_goes_on(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    config = build_config(
        "fast", tiny_overlay(tiny_files, tmp_path / "run"), TOP, {"backbone": {"cache_gb": 0}, "rounds": {"count": 1}}
    )
    self_train(config)
    assert any("backbone.cache_gb is 0" in notice for notice in report_of(tmp_path / "run").notices)
    assert not (tmp_path / "run" / "inputs" / "features").exists()


def test_damaged_features_are_made_again(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    config = build_config("fast", tiny_overlay(tiny_files, tmp_path / "run"), TOP)
    with open_run(config) as run:
        before = run.corpus.features
    assert before is not None
    whole = np.array(before.values)
    path = tmp_path / "run" / "inputs" / "features" / "corpus" / "values.bin"
    path.write_bytes(path.read_bytes()[:-8])
    with open_run(config) as run:
        assert run.corpus.features is not None
        np.testing.assert_array_equal(run.corpus.features.values, whole)
