"""Tables of the Prefect pages: what is empty has no figures."""

from __future__ import annotations

from listflow.flows.pages.tables import balance_table, believed, calibration_table, weights_table
from listflow.pipeline.method.metrics import ReliabilityBin
from listflow.pipeline.results.report import ViewReport

WEIGHTS = {"prompt": 0.332, "text": 0.668}


def test_an_empty_bin_has_no_figures() -> None:
    empty, full = calibration_table((ReliabilityBin(0.0, 0.1, 0, 0, 0), ReliabilityBin(0.9, 1.0, 4, 0.93, 0.0)))
    assert empty == {"confidence": "0 to 10 %", "test rows": 0, "mean confidence": "", "accuracy": ""}
    assert full == {"confidence": "90 to 100 %", "test rows": 4, "mean confidence": "93.0 %", "accuracy": "0.0 %"}


def test_pseudo_rows_come_with_their_confidence_and_the_largest_classes_first() -> None:
    facts = {"round": 1, "rows": 5, "mean_confidence": 0.5, "per_class": {"a": 1, "b": 4}}
    (row,) = balance_table([facts])
    assert list(row.items()) == [
        ("round", 1), ("pseudo rows", 5), ("mean confidence", "50.0 %"), ("b", 4), ("a", 1),
    ]  # fmt: skip


def test_meta_weights_are_called_as_in_the_report() -> None:
    found = {"engine": "fused", "zero_share": 0.25, "effective_sample_size": None, "uniform_steps": 2}
    (row,) = weights_table([{"round": 1, "students": {"text": {"reweight": found}}}])
    assert row == {
        "round": 1, "view": "text", "zero weights": "25.0 %", "effective rows": "-", "steps with uniform weights": 2,
        "engine": "fused",
    }  # fmt: skip


def test_how_far_views_are_believed_in_words() -> None:
    prompt, text = (ViewReport(view, "s", "h", weight, 1, None, None) for view, weight in WEIGHTS.items())
    assert believed((prompt, text)) == "prompt view 33.2 %, text view 66.8 %"
    assert believed(()) == ""
