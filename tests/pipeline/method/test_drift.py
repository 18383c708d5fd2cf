"""How new rows are told to differ from the old ones."""

from __future__ import annotations

from listflow.pipeline.method.drift import Side, warnings_of


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
