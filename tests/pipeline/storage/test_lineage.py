"""What a lineage of runs came to: the best, a slide, what cannot be compared, and what is gone."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from listflow.pipeline.run.wording import lineage_told, slid, slide_told
from listflow.pipeline.storage.lineage import Lineage, Range, Step, lineage_from, read_lineage

WEEKS = (0.87, 0.86, 0.84, 0.855, 0.85, 0.835, 0.835)


def step(number: int, accuracy: float | None, test: str = "one", rows: int = 200) -> Step:
    name = "tickets" if number == 1 else f"tickets-{number:03d}"
    return Step(name, 100, accuracy, 0.05, test if accuracy is not None else "", rows, None, True)


def weeks(*accuracies: float, rows: int = 200) -> Lineage:
    return Lineage(tuple(step(number, share, rows=rows) for number, share in enumerate(accuracies, 1)))


def estimated(*ranges: tuple[float, float, float]) -> Lineage:
    told = (Range(*each) for each in ranges)
    return Lineage(tuple(replace(step(n, None, rows=0), estimate=one) for n, one in enumerate(told, 1)))


def test_six_runs_that_lose_a_little_each_are_a_slide() -> None:
    found = weeks(*WEEKS)
    assert found.best == found.steps[0]
    assert slide_told(found) == (
        "The lineage slides: 83.5 % on the 200 test rows, 3.5 points below the 87.0 % of tickets, where it began; "
        "chance alone may do that (a standard error is 3.5 points at most), but 6 runs in a row are below; go back "
        "with `listflow run --continue tickets`, or label rows that tell the most with `--set review.rows=20`."
    )
    assert slid(found) == "slides, 3.5 points below tickets"


def test_two_runs_below_are_none_unless_they_lost_more_than_a_standard_error() -> None:
    assert not slide_told(weeks(*WEEKS[:3]))
    assert slid(weeks(*WEEKS[:3])) == "run 3"
    assert slid(weeks(*WEEKS[:3]), is_done=False) == "run 4"
    paired = replace(weeks(*WEEKS[:3]), error=0.012)
    assert "more than chance allows (a standard error is 1.2 points over the same rows); go" in slide_told(paired)
    assert "chance alone may do that (a standard error is 2.0 points over" in slide_told(replace(paired, error=0.02))
    assert not slide_told(replace(paired, error=0.031))


def test_what_rises_or_loses_less_than_a_point_is_no_slide() -> None:
    assert not slide_told(weeks(0.8, 0.82, 0.81, 0.83))
    assert not slide_told(replace(weeks(0.87, 0.861, 0.861, 0.861, rows=100_000), error=0.001))
    assert not slide_told(weeks(0.87, 0.84, 0.84, 0.87))


def test_a_best_in_the_middle_is_beside_the_first() -> None:
    told = slide_told(weeks(0.80, 0.90, 0.85, 0.85, 0.84))
    assert "84.0 % on the 200 test rows, 6.0 points below the 90.0 % of tickets-002, its best" in told
    assert "its best (it began with 80.0 %);" in told
    assert "`listflow run --continue tickets-002`" in told


def test_other_test_rows_are_not_compared() -> None:
    old, new = step(1, 0.95), [step(number, share, "two") for number, share in enumerate((0.80, 0.81), 2)]
    found = Lineage((old, *new))
    assert (found.best, slide_told(found)) == (new[1], "")
    assert lineage_told(found) == [
        "tickets cannot be compared with tickets-003: measured on other test rows, or on none."
    ]


def test_estimates_slide_where_their_intervals_do_not_meet() -> None:
    assert not slide_told(estimated((0.85, 0.75, 0.93), (0.70, 0.58, 0.80)))
    told = slide_told(estimated((0.85, 0.75, 0.93), (0.60, 0.48, 0.70)))
    assert "60.0 % by the labels, 25.0 points below the 85.0 % of tickets" in told
    assert "intervals of both do not meet, which is more than chance allows" in told


def test_the_interval_on_test_rows_is_wilson_s() -> None:
    found = step(1, 0.87).range
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.8259, 0.9042), abs=1e-3)


def write(folder: Path, before: Path | None, report: Any, digest: str = "f" * 64) -> Path:
    """As much of a finished run as a lineage reads."""
    folder.mkdir()
    config = {"config": {"continues": str(before) if before else ""}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "inputs.json").write_text(json.dumps({"digests": {"test": digest}}))
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def report(accuracy: float, **more: Any) -> dict[str, Any]:
    final = {"accuracy": accuracy, "macro_f1": 0.5, "ece": 0.04}
    rounds = [{"promoted": False}, {"promoted": True}]
    return {"final": final, "rounds": rounds, "data": {"unlabelled": 80, "test": 50}, **more}


def test_reports_of_earlier_versions_are_followed(tmp_path: Path) -> None:
    one = write(tmp_path / "one", None, report(0.8))
    news = "1,020 of 1,080 unlabelled rows are new since one, which goes on."
    drift = {"warnings": ["The new text has other words."]}
    two = write(tmp_path / "two", one, report(0.9, parent="one", notices=["Else.", news], drift=drift))
    three = write(tmp_path / "three", two, report(0.7, parent="two"))
    found = read_lineage(three)
    assert [(s.run, s.new_rows, s.accuracy) for s in found.steps] == [
        ("one", 80, 0.8), ("two", 1020, 0.9), ("three", None, 0.7)
    ]  # fmt: skip
    assert (found.steps[1].warnings, found.steps[1].test) == (("The new text has other words.",), "f" * 12)
    assert (found.steps[1].ece, found.steps[1].promoted, found.ended) == (0.04, True, "")


def test_what_a_report_keeps_outlives_the_runs_before(tmp_path: Path) -> None:
    kept = weeks(*WEEKS)
    again = write(tmp_path / "renamed", tmp_path / "gone", report(0.835, parent="gone", lineage=asdict(kept)))
    found = read_lineage(again)
    assert [s.run for s in found.steps] == [*(s.run for s in kept.steps[:-1]), "renamed"]
    assert lineage_from(json.loads(json.dumps(asdict(kept)))) == kept


@pytest.mark.parametrize("spoiled", ["", "[]", "{", '{"final": 3}', '{"lineage": {"steps": 1}}', None])
def test_a_report_that_is_damaged_or_gone_ends_the_lineage(tmp_path: Path, spoiled: str | None) -> None:
    one = write(tmp_path / "one", None, report(0.8))
    two = write(tmp_path / "two", one, report(0.8))
    if spoiled is None:
        (one / "report.json").unlink()
    else:
        (one / "report.json").write_text(spoiled)
    found = read_lineage(two)
    assert [s.run for s in found.steps] == ["two"]
    assert lineage_told(found) == ["What one reached, and any run before it, is not known here."]
    assert read_lineage(tmp_path / "nowhere") == Lineage(
        (), "what nowhere reached, and any run before it, is not known here."
    )
    assert slide_told(Lineage(())) == slid(Lineage(())) == ""


def test_a_circle_ends(tmp_path: Path) -> None:
    one = write(tmp_path / "one", tmp_path / "two", report(0.8))
    write(tmp_path / "two", one, report(0.8))
    assert [s.run for s in read_lineage(one).steps] == ["two", "one"]
