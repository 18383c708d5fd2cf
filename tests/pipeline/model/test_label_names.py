"""Names of labels are read whole, and told from codes."""

from __future__ import annotations

import pytest
from tiny import tiny_tokenizer

from listflow.data.task import Task
from listflow.pipeline.backbone import pretrained
from listflow.pipeline.model.label_names import (
    WAYS,
    fill_in_words,
    known_pieces,
    label_sentences,
    label_words,
    says_something,
    silent_notice,
    tidy,
)

TINY, MINILM = tiny_tokenizer(), pretrained.load_base()[1]

WORDS = ["no", "yes", "spam", "ham", "US", "card_arrival", "Sci/Tech", "cats", "ide", "mix", "civil", "C++", "covid19"]
CODES = [
    "0",
    "12",
    "-1",
    "3.5",
    "A",
    "z",
    "c12",
    "x_7",
    "LABEL_3",
    "class/2",
    "Category-10",
    "cluster#4",
    "topic_1_2",
    "class_b",
    "group-II",
    "iv",
    "XII",
    "B+",
    "???",
    "ልጅነት",
]


def task(labels: dict[str, str | None], **more: object) -> Task:
    return Task.model_validate({"name": "t", "template": "{text} {mask}", "labels": labels, **more})


@pytest.mark.parametrize(
    ("name", "tidied"),
    [
        ("Refund_not_showing_up", "refund not showing up"),
        ("RefundNotShown", "refund not shown"),
        ("card-arrival", "card arrival"),
        ("Sci/Tech", "sci tech"),
        ("a__b - c", "a b c"),
        ("  spam ", "spam"),
        ("SMS", "sms"),
        ("LABEL_3", "label 3"),
        ("c12", "c12"),
        ("-1", "-1"),
        ("A-", "a-"),
        ("___", "___"),
        ("/", "/"),
        ("ÄrgerÜber", "ärger über"),
    ],
)
def test_a_name_is_tidied(name: str, tidied: str) -> None:
    assert tidy(name) == tidied
    assert tidy(tidied) == tidied


@pytest.mark.parametrize("name", WORDS)
def test_words_say_something(name: str) -> None:
    assert says_something(name, MINILM)


@pytest.mark.parametrize("name", CODES)
def test_codes_and_unknown_names_say_nothing(name: str) -> None:
    assert not says_something(name, MINILM)


def test_a_word_is_the_tasks_or_the_name() -> None:
    """As it is where it is a token, as it was before names were tidied."""
    assert label_words(task({"a": "Good", "bad": None, "Bad_Film": None}), TINY) == ("Good", "bad", "bad film")
    assert fill_in_words(task({"a": "Good", "Bad_Film": None})).labels == {"a": "Good", "Bad_Film": "bad film"}


def test_pieces_that_are_not_known_are_left_out() -> None:
    assert known_pieces("bad film", TINY) == tuple(TINY.convert_tokens_to_ids(["bad", "film"]))
    assert known_pieces("bad zzz", TINY) == tuple(TINY.convert_tokens_to_ids(["bad"]))
    assert known_pieces("zzz yyy", TINY) == ()


def test_a_label_has_a_sentence_where_it_says_something() -> None:
    named = task({"0": None, "bad_film": None, "2": "good", "plot": None}, descriptions={"plot": "It tells a story."})
    assert label_sentences(named, TINY) == (
        (), *(tuple(way.format(name) for way in WAYS) for name in ("bad film", "good")), ("It tells a story.",) * 3
    )  # fmt: skip
    assert label_sentences(fill_in_words(named), TINY) == label_sentences(named, TINY)


def test_names_that_say_nothing_are_one_sentence() -> None:
    assert silent_notice(task({"good": None, "bad": None}), TINY) is None
    assert silent_notice(task({"good": None, "1": None}), TINY) == (
        "the name of 1 label (1) says nothing and is not read; a task file can describe it under descriptions."
    )
    assert silent_notice(task(dict.fromkeys("0123456")), TINY) == (
        "the names of 7 labels (0, 1, 2, 3, 4 and 2 more) say nothing and are not read; a task file can describe them "
        "under descriptions."
    )
