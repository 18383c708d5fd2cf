"""What a stage can be, and what makes no sense."""

from __future__ import annotations

from typing import Any

import pytest

from listflow.pipeline.stages.presets import stages


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"composition": "gated"}, "gated is the softmax of a prefix"),
        ({"form": "relu", "place": ["attention_heads"]}, "attention_heads has no sequential insertion"),
        ({"form": "softmax", "insertion": "parallel"}, "belongs at place attention_heads alone"),
        (
            {"form": "softmax", "place": ["attention_heads", "ffn_output"], "insertion": "parallel"},
            "belongs at place attention_heads alone",
        ),
        ({"place": ["embeddings"], "insertion": "parallel"}, "embeddings has no parallel insertion"),
        ({"mlp": 8}, "mlp and neutral belong to form softmax"),
        (
            {"form": "softmax", "place": ["attention_heads"], "insertion": "parallel", "neutral": True},
            "neutral belongs to the gated composition",
        ),
        ({"scale": 2.0}, "belong to the scaled composition"),
        ({"learned_scale": True}, "belong to the scaled composition"),
        ({"place": []}, "at least 1 item"),
        ({"layers": "top:0"}, "layers"),
        ({"layers": [-1]}, "greater than or equal to 0"),
        ({"widht": 8}, "Extra inputs are not permitted"),
    ],
)
def test_values_that_make_no_sense_are_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        stages({"kind": "unified"} | values)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"start": "words"}, "give both or neither"),
        ({"encoder": "none", "hidden": 4}, "hidden belongs to an encoder"),
        ({"layers": "top:1"}, "layers"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        stages("ptuning", **values)


def test_two_stages_with_pseudo_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="a prompt has those of one"):
        stages(["ptuning", "soft_prompt"])
