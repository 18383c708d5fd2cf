"""Tokens become a vector as the makers of a sentence encoder say in its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers.utils
from finished_views import sentence_files

from listflow.data.errors import InputError
from listflow.pipeline.backbone.pooling import LONGEST_PREFIX, Pooling, joined, read_pooling

HIDDEN = torch.tensor([[[3.0, 4.0], [1.0, -2.0], [90.0, 90.0]], [[0.0, 2.0], [90.0, 90.0], [90.0, 90.0]]])
ATTENTION = torch.tensor([[1, 1, 0], [1, 0, 0]])
POOLED = {
    "mean": [[2.0, 1.0], [0.0, 2.0]],
    "first": [[3.0, 4.0], [0.0, 2.0]],
    "max": [[3.0, 4.0], [0.0, 2.0]],
}


@pytest.mark.parametrize("mode", POOLED)
@pytest.mark.parametrize("normalised", [False, True])
def test_padding_is_not_pooled(mode: Any, normalised: bool) -> None:
    expected = torch.tensor(POOLED[mode])
    found = Pooling(mode=mode, normalised=normalised).pool(HIDDEN.bfloat16(), ATTENTION)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, F.normalize(expected, dim=-1) if normalised else expected)


def test_without_files_it_is_the_normalised_mean(tmp_path: Path) -> None:
    assert read_pooling(str(tmp_path)) == Pooling(mode="mean", normalised=True)


@pytest.mark.parametrize(
    ("said", "mode"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True}, "first"),
        ({"pooling_mode": "cls"}, "first"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode": "max"}, "max"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt"),
        ({"pooling_mode_weightedmean_tokens": True}, "weighted"),
        ({"pooling_mode": "weightedmean", "include_prompt": False}, "weighted"),
    ],
)
def test_the_mode_is_read_of_either_form(tmp_path: Path, said: dict[str, Any], mode: str) -> None:
    assert read_pooling(str(sentence_files(tmp_path, said))).mode == mode


def test_a_folder_says_all_of_it(tmp_path: Path) -> None:
    limits = {"max_seq_length": 9, "do_lower_case": True}
    prompts = {"prompts": {"query": "query: ", "classification": "classify: "}, "default_prompt_name": None}
    sentence_files(tmp_path, {"pooling_mode_cls_token": True}, False, limits, prompts)
    expected = Pooling(mode="first", normalised=False, prefix="classify: ", lower=True, max_length=9)
    assert read_pooling(str(tmp_path)) == expected
    (tmp_path / "1_Pooling").rename(tmp_path / "9_Pooling")
    modules = (tmp_path / "modules.json").read_text().replace("1_Pooling", "9_Pooling")
    (tmp_path / "modules.json").write_text(modules)
    assert read_pooling(str(tmp_path)) == expected


@pytest.mark.parametrize(
    ("prompts", "prefix"),
    [
        ({"prompts": {"query": "query: "}}, ""),
        ({"prompts": {"query": "query: ", "clustering": "group: "}}, "group: "),
        ({"prompts": {"query": "query: ", "clustering": "group: "}, "default_prompt_name": "query"}, "query: "),
        ({"prompts": {"Classification": "x" * 9 * LONGEST_PREFIX}}, "x" * LONGEST_PREFIX),
        ({"prompts": None}, ""),
    ],
)
def test_the_prefix_is_the_default_or_one_for_telling_texts_apart(
    tmp_path: Path, prompts: dict[str, Any], prefix: str
) -> None:
    assert read_pooling(str(sentence_files(tmp_path, prompts=prompts))).prefix == prefix


@pytest.mark.parametrize("name", ["minilm", "some/where/update.safetensors"])
def test_the_embedded_encoder_is_read_as_its_makers_say(name: str) -> None:
    assert read_pooling(name) == read_pooling("minilm")
    assert (read_pooling(name).mode, read_pooling(name).normalised) == ("mean", True)


def test_the_files_of_a_hub_id_are_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence_files(tmp_path, {"pooling_mode_cls_token": True}, normalised=False, limits={"max_seq_length": 7})
    asked: list[str] = []

    def cached_file(repo: str, name: str, **_: Any) -> str | None:
        asked.append(f"{repo} {name}")
        return str(tmp_path / name) if (tmp_path / name).exists() else None

    monkeypatch.setattr(transformers.utils, "cached_file", cached_file)
    assert read_pooling("owner/name") == Pooling(mode="first", normalised=False, max_length=7)
    assert asked[:2] == ["owner/name modules.json", "owner/name 1_Pooling/config.json"]
    (tmp_path / "modules.json").unlink()
    assert read_pooling("owner/name") == Pooling()


@pytest.mark.parametrize("name", ["modules.json", "1_Pooling/config.json", "sentence_bert_config.json"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    sentence_files(tmp_path, limits={"max_seq_length": 7})
    (tmp_path / name).write_text('{"half')
    with pytest.raises(InputError, match=rf"{name} is damaged .*; restore it, or remove the sentence files\."):
        read_pooling(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("modules.json", {"type": "not a list"}),
        ("modules.json", [{"idx": 0}]),
        ("1_Pooling/config.json", ["not an object"]),
        ("sentence_bert_config.json", {"max_seq_length": "many"}),
        ("config_sentence_transformers.json", {"prompts": ["classification"]}),
    ],
)
def test_json_of_another_shape_is_damage_too(tmp_path: Path, name: str, content: Any) -> None:
    sentence_files(tmp_path, limits={}, prompts={})
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"restore (it|them), or remove the sentence files\."):
        read_pooling(str(tmp_path))


def test_a_pair_is_told_from_its_reverse() -> None:
    u, v = torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]])
    found = joined(u, v)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.4, 0.8, 0.6, 0.0, -0.2, 0.4]]))
    torch.testing.assert_close(joined(v, u)[:, -2:], -found[:, -2:])
    assert torch.equal(joined(v, u)[:, :-2], found[:, :-2])


def by_sentence_transformers(mode: str, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Their Pooling module's formulas, written out."""
    wide = mask.unsqueeze(-1).expand(hidden.size()).float()
    if mode == "last":
        return torch.stack([row[int(seen.nonzero().max())] for row, seen in zip(hidden, mask, strict=True)])
    if mode == "weighted":
        weights = torch.arange(1, hidden.shape[1] + 1).unsqueeze(0).unsqueeze(-1).expand(hidden.size()).float()
        return torch.sum(hidden * wide * weights, 1) / torch.clamp((wide * weights).sum(1), min=1e-9)
    return torch.sum(hidden * wide, 1) / torch.sqrt(torch.clamp(wide.sum(1), min=1e-9))


@pytest.mark.parametrize("mode", ["last", "weighted", "mean_sqrt"])
def test_rarer_modes_are_those_of_sentence_transformers(mode: Any) -> None:
    hidden = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(6) < torch.tensor([[6], [1], [4]])).long()
    found = Pooling(mode=mode, normalised=False).pool(hidden, mask)
    torch.testing.assert_close(found, by_sentence_transformers(mode, hidden, mask))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            "pools by pooling_mode_cls_token and pooling_mode_mean_tokens, which is not read here",
        ),
        ({"pooling_mode": ["mean", "max"]}, "pools by mean and max"),
        ({"pooling_mode": "by_luck"}, "pools by by_luck"),
    ],
)
def test_modes_at_once_or_unknown_are_refused(tmp_path: Path, said: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_pooling(str(sentence_files(tmp_path, said)))


@pytest.mark.parametrize("kind", ["Dense", "LayerNorm", "WordWeights"])
def test_a_module_that_is_not_read_is_named(tmp_path: Path, kind: str) -> None:
    sentence_files(tmp_path)
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules.insert(2, {"idx": 2, "name": "2", "path": f"2_{kind}", "type": f"sentence_transformers.models.{kind}"})
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match=rf"has a module {kind} \(modules\.json\), which is not read here"):
        read_pooling(str(tmp_path))


def test_a_prompt_that_is_left_out_of_the_pool_is_refused(tmp_path: Path) -> None:
    sentence_files(
        tmp_path, {"pooling_mode": "mean", "include_prompt": False}, prompts={"prompts": {"clustering": "c "}}
    )
    with pytest.raises(InputError, match="leaves its prompt out when it pools"):
        read_pooling(str(tmp_path))
