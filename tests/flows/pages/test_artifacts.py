"""What drift and two views look like on a page of the Prefect UI."""

from __future__ import annotations

from dataclasses import replace

from listflow.flows.pages.artifacts import drift_page, views_page
from listflow.pipeline.method.drift import Drift, ShardAgreement, Side
from listflow.pipeline.results.report import Candidate, TextTeacher, ViewReport


def test_drift_as_a_page() -> None:
    side = Side(10, {"a": 0.2, "b": 0.8}, 0.9, 0.05)
    shards = tuple(ShardAgreement(f"pool/{number:06d}", 10, 0.5) for number in range(50))
    lines = list(drift_page(Drift(side, replace(side, confidence=0.7), shards, ("<less sure>",))))
    assert r"- \<less sure\>" in lines
    assert "| labelled `b` | 80.0 % | 80.0 % |" in lines
    assert "| mean confidence of the earlier model | 90.0 % | 70.0 % |" in lines
    assert sum(line.startswith("| `pool/") for line in lines) == 50


def test_two_views_as_a_page() -> None:
    shares = {"a|b": 0.75, "<c>": 0.25}
    teacher = TextTeacher((Candidate("regression", 0.6, 1.0, 0.2),), 0.9, shares, shares, dict.fromkeys(shares, 0.5))
    first = ViewReport("prompt", "list", "<b>", 0.3, 5, None, None, "5 of 9 labelled rows right.")
    second = ViewReport(
        "text", "none", "prototypes", 0.7, 7, None, None, "7 of 9 labelled rows right.", teacher=teacher
    )
    lines = list(views_page((first, second)))
    assert "- **prompt view**, believed 30.0 % (stage list, head \\<b\\>): 5 of 9 labelled rows right." in lines
    assert "| regression | 60.0 % |" in lines
    assert "| label | pool, estimated | labelled rows | pool, stated |" in lines
    assert "| `a\\|b` | 75.0 % | 75.0 % | 50.0 % |" in lines
    assert list(views_page(())) == []
