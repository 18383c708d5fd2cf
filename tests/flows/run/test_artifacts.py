"""What texts of a corpus and drift look like on a page of the Prefect UI."""

from __future__ import annotations

from dataclasses import replace

from listflow.flows.run.artifacts import code, drift_page, table
from listflow.pipeline.results.report import Drift, ShardAgreement, Side


def test_a_page_neither_loads_nor_breaks_on_a_text() -> None:
    assert code("a | ![x](http://x.test/y.png)\n<b>`c`</b>") == "`a | ![x](http://x.test/y.png) <b>'c'</b>`"
    assert code(" \n") == ""
    assert table(("a", "b:"), [("1", "`2|3`")]) == ["| a | b |", "| --- | ---: |", "| 1 | `2\\|3` |"]


def test_drift_as_a_page() -> None:
    side = Side(10, {"a": 0.2, "b": 0.8}, 0.9, 0.05)
    shards = tuple(ShardAgreement(f"pool/{number:06d}", 10, 0.5) for number in range(50))
    lines = list(drift_page(Drift(side, replace(side, confidence=0.7), shards, ("<less sure>",))))
    assert "- &lt;less sure&gt;" in lines
    assert "| labelled `b` | 80.0 % | 80.0 % |" in lines
    assert "| mean confidence of the earlier model | 90.0 % | 70.0 % |" in lines
    assert sum(line.startswith("| `pool/") for line in lines) == 50
