"""What texts of a corpus look like on a page of the Prefect UI, and what drift looks like there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from listflow.flows.run.artifacts import code, drift_page, table
from listflow.flows.run.review import form_text, lines_to_fill_in
from listflow.pipeline.results.report import Drift, ShardAgreement, Side
from listflow.pipeline.run.review import Asked, Contested, parse_answers


def test_a_page_neither_loads_nor_breaks_on_a_text() -> None:
    assert code("a | ![x](http://x.test/y.png)\n<b>`c`</b>") == "`a | ![x](http://x.test/y.png) <b>'c'</b>`"
    assert code(" \n") == ""
    assert table(("a", "b:"), [("1", "`2|3`")]) == ["| a | b |", "| --- | ---: |", "| 1 | `2\\|3` |"]


def test_the_form_shows_rows_and_what_was_wrong() -> None:
    row = Contested("pool:3", 2, "so <i>good</i>", "or | bad", "bad", 0.5, "good", 1.0, "0.50 against 0.50")
    asked = Asked(Path("review"), 2, ("bad", "good"), (row,))
    lines = form_text(asked, "unknown `label`").splitlines()
    assert lines[0] == "**Not taken:** `unknown 'label'`"
    assert lines[-1] == "- `pool:3` is `bad` (`0.50 against 0.50`): `so <i>good</i> / or | bad`"


def test_what_is_left_as_it_was_is_no_answer() -> None:
    rows = tuple(Contested(row_id, 0, "x", None, "a", 0.5, "b", 1.0, "") for row_id in ("p:1", "a,b:2"))
    text = lines_to_fill_in(Asked(Path("review"), 1, ("a", "b"), rows))
    assert text == 'p:1,\n"a,b:2",\n'
    assert list(parse_answers(text)) == []
    assert [answer.row_id for answer in parse_answers(text.replace('2",', '2",b'))] == ["a,b:2"]


def test_drift_as_a_page() -> None:
    side = Side(10, {"a": 0.2, "b": 0.8}, 0.9, 0.05)
    shards = tuple(ShardAgreement(f"pool/{number:06d}", 10, 0.5) for number in range(50))
    lines = list(drift_page(Drift(side, replace(side, confidence=0.7), shards, ("<less sure>",))))
    assert "- &lt;less sure&gt;" in lines
    assert "| labelled `b` | 80.0 % | 80.0 % |" in lines
    assert "| mean confidence of the earlier model | 90.0 % | 70.0 % |" in lines
    assert sum(line.startswith("| `pool/") for line in lines) == 50
