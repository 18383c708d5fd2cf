"""How new rows are told to differ from the old ones."""

from __future__ import annotations

import pytest

from listflow.pipeline.method.drift import Side, Words, drawn, is_foreign, unseen_share, warnings_of, words_of


def test_differences_must_be_large_and_sure() -> None:
    def side(rows: int, first: float, confidence: float = 0.9, unseen: float = 0.1, unknown: float = 0.0) -> Side:
        return Side(rows, {"a": first, "b": 1 - first}, confidence, unseen, unknown)

    assert not list(warnings_of(side(500, 0.5), side(500, 0.54)))
    assert not list(warnings_of(side(20, 0.5), side(20, 0.7)))
    assert len(list(warnings_of(side(500, 0.5), side(500, 0.7)))) == 2
    assert "less sure" in next(iter(warnings_of(side(500, 0.5), side(500, 0.5, confidence=0.7))))
    assert "other words" in next(iter(warnings_of(side(500, 0.5), side(500, 0.5, unseen=0.4))))
    said = list(warnings_of(side(500, 0.5), side(500, 0.5, unknown=0.3)))
    assert said == ["The backbone does not know 30% of the tokens of the new text, and 0% of the old."]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (Words(5000, 0.21, 0.0), Words(5000, 0.88, 0.0), True),  # another language
        (Words(5000, 0.26, 0.0), Words(5000, 0.68, 0.0), True),  # lines of code
        (Words(5000, 0.26, 0.0), Words(5000, 0.86, 0.0), True),  # lines of a log
        (Words(5000, 0.26, 0.0), Words(5000, 0.53, 0.0), False),  # another domain, in the same language
        (Words(5000, 0.43, 0.0), Words(5000, 0.56, 0.0), False),  # one letter of 25 wrong
        (Words(5000, 0.27, 0.0), Words(5000, 0.49, 0.0), False),  # a class that was never seen
        (Words(5000, 0.97, 0.0), Words(5000, 1.0, 0.0), False),  # words are not divided by spaces
        (Words(5000, 0.97, 0.0), Words(5000, 1.0, 0.4), True),  # and the backbone does not know them
        (Words(5000, 0.20, 0.1), Words(5000, 0.3, 0.35), False),
        (Words(5000, 0.43, 0.0), Words(60, 1.0, 0.9), False),  # too few to tell
        (Words(60, 0.1, 0.0), Words(5000, 1.0, 0.9), False),
    ],
)
def test_what_is_foreign_is_so_beyond_doubt(old: Words, new: Words, expected: bool) -> None:
    assert is_foreign(old, new) is expected


def test_words_are_counted_in_one_case_and_of_both_texts() -> None:
    words = words_of([("The CAT sat", None), ("the cat", "A dog")])
    assert words == ["the", "cat", "sat", "the", "cat", "a", "dog"]
    assert unseen_share(words, {"the", "cat"}) == pytest.approx(3 / 7)
    assert unseen_share([], set()) == 0


def test_a_draw_is_the_same_again_and_another_for_another_purpose() -> None:
    first, again, other = (drawn(1, purpose, range(2000), 50).tolist() for purpose in ("old", "old", "new"))
    assert first == again == sorted(first)
    assert first != other
    assert drawn(1, "old", range(7)).tolist() == list(range(7))
