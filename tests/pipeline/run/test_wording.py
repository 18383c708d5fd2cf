"""Presets are recognised back from their values."""

from __future__ import annotations

from typing import Any

import pytest

from listflow.pipeline.model.config import LinearHead, VerbalizerHead, YTuningHead
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.wording import name_of, name_of_head, trained
from listflow.pipeline.stages.presets import STAGE_PRESETS, stages


@pytest.mark.parametrize("preset", STAGE_PRESETS)
def test_every_preset_is_called_by_its_name(preset: str) -> None:
    if preset == "ipt":
        assert name_of(stages(preset, subspace="found", decoder="0" * 64)) == "ipt (subspace found)"
    else:
        assert name_of(stages(preset)) == preset


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"kind": "list", "width": 16, "layers": "top:1"}, "list (layers top:1, width 16)"),
        ({"kind": "lora", "layers": [0, 2]}, "lora (layers 0+2)"),
        ({"kind": "mam", "layers": "top:2"}, "mam (layers top:2)"),
        (["prefix", "bitfit"], "prefix + bitfit"),
        (["bitfit", "mam", {"kind": "lora", "width": 8}], "bitfit + mam + lora (width 8)"),
        ({"kind": "prefix_neutral", "width": 4}, "prefix_neutral (width 4)"),
        ({"kind": "ptuning", "encoder": "mlp"}, "ptuning (encoder mlp)"),
        (
            {"kind": "soft_prompt", "start": "words", "words": "w" * 99},
            f"soft_prompt (start words, words {'w' * 37}...)",
        ),
        ({"kind": "unified", "form": "gelu", "bias": True}, "unified (form gelu, bias on)"),
    ],
)
def test_what_differs_stands_in_brackets(given: Any, name: str | None) -> None:
    found = name_of(stages(given))
    assert found == name or (
        name is None and found.startswith("soft_prompt (start words, words w w") and len(found) < 80
    )


def test_heads_and_the_whole_sentence() -> None:
    assert name_of_head(VerbalizerHead()) == "verbalizer"
    assert name_of_head(LinearHead(pool="mask")) == "linear (pool mask)"
    assert name_of_head(YTuningHead(width=64, margin=1.0)) == "ytuning (width 64, margin 1)"
    config = build_config("fast")
    assert trained(name_of(config.stage), name_of_head(config.head), 208_000, 22_713_216) == (
        "stage list (layers top:1, width 16, init_std 0.02), head verbalizer, 208,000 trainable of 22.7 M"
    )
