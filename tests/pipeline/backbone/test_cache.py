"""Layers below the tuned ones: split exactly, run once per text, kept on disk."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from tiny import CONFIGS, sentences, tiny_backbone, tiny_overlay, write_jsonl
from torch import Tensor, nn

from listflow.data.task import Task
from listflow.pipeline.backbone import cache as features
from listflow.pipeline.backbone import cache as pieces
from listflow.pipeline.backbone import layers as split
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.cache import _copied, content_key, known_places, pieces_of, with_features
from listflow.pipeline.backbone.layers import SHAPED_LIKE_BERT, lower, narrow, upper
from listflow.pipeline.backbone.prompt import Prompt, Text
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.config import VerbalizerHead
from listflow.pipeline.results.outcome import report_of
from listflow.pipeline.run.config import build_config
from listflow.pipeline.run.feature_cache import forget_oldest, frozen_layers
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.self_training import self_train
from listflow.pipeline.stages.presets import stages
from listflow.pipeline.training.trainer import Material, Recipe, Trainer

TOP = {"stage": {"layers": "top:1"}}


def texts() -> tuple[Tensor, Tensor]:
    """(ids, attention), three texts, one padded."""
    ids = torch.randint(5, 40, (3, 12), generator=torch.Generator().manual_seed(0))
    attention = torch.ones_like(ids)
    attention[1, 8:] = 0
    return ids, attention


@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_both_halves_are_the_whole_encoder(family: str) -> None:
    backbone, (ids, attention) = tiny_backbone(family), texts()
    whole = backbone.view()(input_ids=ids, attention_mask=attention).last_hidden_state
    hidden = lower(backbone, 1)(input_ids=ids, attention_mask=attention).last_hidden_state
    assert not torch.allclose(hidden, whole)
    above = upper(backbone, 1)(inputs_embeds=hidden, attention_mask=attention).last_hidden_state
    assert torch.equal(above[attention.bool()], whole[attention.bool()])


@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_all_layers_below_are_the_whole_encoder(family: str) -> None:
    backbone, (ids, attention) = tiny_backbone(family), texts()
    whole = backbone.view()(input_ids=ids, attention_mask=attention).last_hidden_state
    assert torch.equal(lower(backbone, 2)(input_ids=ids, attention_mask=attention).last_hidden_state, whole)


@pytest.mark.parametrize("attention_kind", ["eager", "sdpa"])
@pytest.mark.parametrize("family", sorted(SHAPED_LIKE_BERT))
@torch.no_grad()
def test_a_narrow_last_layer_gives_the_mask_row_of_the_whole_one(family: str, attention_kind: str) -> None:
    backbone, (ids, attention) = tiny_backbone(family), texts()
    backbone.model.set_attn_implementation(attention_kind)
    at = torch.tensor([2, 7, 11])
    for seen in (attention, torch.ones_like(attention)):
        whole = backbone.view()(input_ids=ids, attention_mask=seen).last_hidden_state[torch.arange(3), at]
        view = backbone.view()
        assert narrow(view, backbone)
        row = view(input_ids=ids, attention_mask=seen, mask_at=at).last_hidden_state
        assert row.shape == (3, 1, 32)
        torch.testing.assert_close(row[:, 0], whole, rtol=1e-5, atol=1e-5)


def test_other_families_keep_their_last_layer_whole() -> None:
    backbone = tiny_backbone("modernbert")
    assert not narrow(backbone.view(), backbone)


def test_large_deberta_is_not_divided() -> None:
    backbone = tiny_backbone("deberta-v2")
    backbone.model.config.conv_kernel_size = 3
    try:
        assert not split.divisible(backbone)
        assert Classifier(backbone, stages("list", layers="top:1", width=4), VerbalizerHead(), [5, 6]).below is None
    finally:
        del backbone.model.config.conv_kernel_size


def test_layers_below_never_drop_and_take_no_gradient() -> None:
    model = Classifier(tiny_backbone(), stages("list", layers="top:1", width=4), VerbalizerHead(), [5, 6]).train()
    assert model.below is not None
    assert not any(module.training for module in model.below.modules())
    assert any(module.training for module in model.encoder.modules() if isinstance(module, nn.Dropout))


def test_training_on_kept_features_takes_the_same_steps(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    config = build_config("fast", tiny_overlay(tiny_files, tmp_path / "run"), TOP)
    losses = {}
    for keep in (True, False):
        with open_run(config, keep_features=keep) as run:
            assert (run.corpus.features is not None) is keep
            soft = torch.tensor([[0.99, 0.01]]).expand(len(run.corpus), 2)
            material = Material(run.labelled, run.gold, run.corpus, soft)
            recipe = Recipe((("warmup", 4), ("reweighted", 4), ("tail", 4)), 1e-2, 6, 4, 4)
            losses[keep] = Trainer(run.new_classifier(1, None), recipe, material).run().losses
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-4)


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of texts in every pass through frozen layers, as it happens."""
    seen: list[int] = []

    def counted(backbone: object, depth: int) -> nn.Module:
        below = split.lower(backbone, depth)  # type: ignore[arg-type]
        plain = below.forward
        below.forward = lambda **given: seen.append(len(given["input_ids"])) or plain(**given)  # type: ignore[method-assign,func-returns-value]
        return below

    monkeypatch.setattr(features, "lower", counted)
    monkeypatch.setattr("listflow.pipeline.backbone.layers.lower", counted)
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
    monkeypatch.setattr(pieces, "ROWS", 16)
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
        assert sum(passed) == 80 - 3 * 16
        assert run.corpus.features is not None
        values = np.array(run.corpus.features.values)
    alone = build_config("fast", tiny_overlay(files, tmp_path / "alone"), TOP)
    with open_run(alone) as run:
        assert run.corpus.features is not None
        np.testing.assert_array_equal(run.corpus.features.values, values)


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
        found = with_features(encoded, backbone, 1, tmp_path / name, "layers", lambda rows: None, earlier).features
        assert found is not None
        return found.values.tobytes()

    expected = values("first")
    known = known_places([tmp_path / "first"], {piece.key for piece in pieces_of(encoded, "layers")})
    assert known
    (tmp_path / "first" / "pieces.json").write_text("[")
    assert values("second", tmp_path / "first", tmp_path / "never") == expected
    shutil.rmtree(tmp_path / "first")
    assert _copied(next(iter(known.values())), backbone) is None


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
