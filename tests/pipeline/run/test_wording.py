"""Presets are recognised back from their values."""

from __future__ import annotations

from typing import Any

import pytest

from listflow.pipeline.method.metrics import Curve, Estimate
from listflow.pipeline.model.config import LinearHead, VerbalizerHead, YTuningHead
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.wording import (
    EFFECTIVE_ROWS,
    KAPPA,
    MEANS,
    accuracy_told,
    curve_told,
    estimate_told,
    explained,
    name_of,
    name_of_head,
    points,
    trained,
)
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


def test_an_estimate_says_what_it_is_of_and_what_it_is_from() -> None:
    found = Estimate(0.765, 0.645, 0.884, 24, 30)
    assert estimate_told(found) == (
        "Estimated from the labels: 76.5 % (64.5 to 88.4 %) accuracy on texts like the labelled ones, the range with "
        "90 % certainty; 24 of 30 held-out rows were right without their own label, which few rows "
        "can be by luck, so the estimate is drawn towards half."
    )
    assert accuracy_told(0.8, found) == "80.0 % accuracy"
    assert accuracy_told(None, found) == "an estimated accuracy of 76.5 % (64.5 to 88.4 %)"
    assert accuracy_told(None, None) == "accuracy unknown without test rows"


ASKED = "`--set review.rows=20` asks for the rows that tell the most."


@pytest.mark.parametrize(
    ("gain", "error", "advice"),
    [
        (0.06, 0.02, f"brought +6.0 points (2.0), so label more: {ASKED}"),
        (-0.02, 0.05, "brought -2.0 points (5.0): too few rows to tell whether more would help."),
        (0.05, 0.06, "brought +5.0 points (6.0): too few rows to tell whether more would help."),
        (0.004, 0.002, "brought +0.4 points (0.2), so more labels alone are not likely to change much."),
    ],
)  # fmt: skip
def test_what_more_labels_would_bring_says_what_to_do(gain: float, error: float, advice: str) -> None:
    said = curve_told(Curve((12, 24), (0.7, 0.7 + gain), gain, error))
    assert said.startswith("Labels and names alone, text view: 70.0 % > ")
    assert said.endswith(f"with 12 > 24 labels; the last doubling {advice}")


@pytest.mark.parametrize(
    ("after", "before", "words"),
    [(0.876, 0.870, "+0.6"), (0.649, 0.661, "-1.2"), (0.87, 0.87004, "+0.0"), (None, 0.5, "-"), (0.5, None, "-")],
)
def test_a_change_has_its_sign(after: float | None, before: float | None, words: str) -> None:
    assert points(after, before) == words


def test_figures_are_explained_in_a_clause_each() -> None:
    said = explained(KAPPA, EFFECTIVE_ROWS)
    assert said.startswith("Kappa: how alike the student and its teacher label unlabelled texts, 1 is equal")
    assert "Effective rows: how many rows of a batch count, the effective sample size (ESS)" in said
    assert all(len(words) < 100 for words in MEANS.values())
