"""Where pseudo tokens stand in a template, and marks that do not fit."""

from __future__ import annotations

import pytest
from pseudo_token_models import LABELS, TASK, build
from tiny import tiny_backbone

from listflow.data.errors import InputError
from listflow.data.task import Task
from listflow.pipeline.backbone.prompt import Prompt


@pytest.mark.parametrize(
    ("template", "place", "expected"),
    [
        ("{text} it was {mask} .", "auto", "w9 [P1] [P2] [P3] it was [MASK] ."),
        ("{text} it was {mask} .", "before_text", "[P1] [P2] [P3] w9 it was [MASK] ."),
        ("{text} it was {mask} .", "around_mask", "w9 it was [P1] [P2] [MASK] [P3] ."),
        ("{mask} : {text}", "before_clause", "[P1] [P2] [P3] [MASK] [UNK] w9"),
        ("{soft:2} {text} it {soft} was {mask} .", "auto", "[P1] [P2] w9 it [P3] was [MASK] ."),
        ("{soft:2} {text} it {soft} was {mask} .", "before_clause", "w9 [P1] [P2] [P3] it was [MASK] ."),
    ],
)
def test_places(template: str, place: str, expected: str) -> None:
    _, prompt = build(template=template, place=place)
    encoded = prompt.encode([("w9", None)])
    assert prompt.spell(encoded.ids.tolist()) == f"[CLS] {expected} [SEP]"
    assert encoded.ids[encoded.mask_at[0]] == prompt.tokenizer.mask_token_id


def test_marks_stand_for_nothing_where_no_stage_has_pseudo_tokens() -> None:
    marked, bare = "{soft:2} {text} it {soft} was {mask} .", "{text} it was {mask} ."
    tokens = tiny_backbone().tokenizer
    found, expected = (Prompt(Task(name="t", template=t, labels=LABELS), tokens, 32) for t in (marked, bare))
    assert found.parts == expected.parts


@pytest.mark.parametrize(
    ("template", "reason"), [(TASK.template, "has no {soft:N}"), ("{soft:5} {text} {mask}", "set stage.tokens=5")]
)
def test_marks_that_do_not_fit_are_refused(template: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        build(template=template, place="marks")


@pytest.mark.parametrize("place", ["auto", "before_text", "around_mask"])
def test_a_long_text_is_cut_and_the_pseudo_tokens_stay(place: str) -> None:
    _, prompt = build(place=place)
    encoded = prompt.encode([("w1 " * 500, None)])
    assert len(encoded.ids) == prompt.max_length
    assert sorted(i for i in encoded.ids.tolist() if i < 0) == [-3, -2, -1]
    assert encoded.ids[encoded.mask_at[0]] == prompt.tokenizer.mask_token_id
