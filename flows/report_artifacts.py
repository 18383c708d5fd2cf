"""What the Prefect UI shows of a finished run: calibration, drift, and the report with the way to it."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from listflow.flows.away import RETRIES, if_it_answers
from listflow.flows.markdown import code, table
from listflow.pipeline.drift_facts import Drift
from listflow.pipeline.results.outcome import report_of
from listflow.pipeline.results.report import RunReport, headline, trained_words
from listflow.pipeline.wording import duration, percent

CALIBRATION, DRIFTED, REPORT = "list-calibration", "list-drift", "list-report"
MOST_LABELS = 100


def show_report(run: Path) -> None:
    """Calibration of the final model where test rows allow it, drift where a run was continued, and the report."""
    report = report_of(run)
    if report.figures.reliability:
        bins = [
            {
                "confidence from": f"{b.lower:.1f}", "to": f"{b.upper:.1f}", "rows": b.count,
                "mean confidence": percent(b.confidence), "accuracy": percent(b.accuracy),
            }
            for b in report.figures.reliability
        ]  # fmt: skip
        words = "How sure the final model is of test rows, and how often it is right: the two should be alike"
        with if_it_answers(RETRIES):
            create_table_artifact(bins, CALIBRATION, words)
    if report.drift:
        words = "Whether the new rows look like the old ones, and how far the model has moved on each shard"
        _page(drift_page(report.drift), DRIFTED, words)
    _page(_report(report, run), REPORT, headline(report))


def _page(lines: Iterator[str], key: str, words: str) -> None:
    with if_it_answers(RETRIES):
        create_markdown_artifact("\n".join(lines), key, words)


def _report(report: RunReport, run: Path) -> Iterator[str]:
    yield f"# {escape(report.task)}, run {report.run_id}"
    yield f"\n{headline(report)}\n"
    words, begun = report.beginning
    measured = {"no labels": report.zero_shot, words: begun, "final": report.final}
    rows = [
        (escape(name), percent(found.accuracy), percent(found.macro_f1), percent(found.ece))
        for name, found in measured.items()
        if found
    ]
    yield from table(("model", "accuracy:", "macro F1:", "calibration error:"), rows) if rows else ()
    yield (
        f"\n{trained_words(report)}; backbone {escape(report.backbone.name)}; {report.data.labelled} labelled, "
        f"{report.data.unlabelled:,} unlabelled and {report.data.test:,} test rows; {duration(report.seconds)}.\n"
    )
    yield from (f"- {escape(notice, quote=False)}" for notice in report.notices)
    yield "\nOn the machine that ran it (browsers may refuse to follow such links; the paths are for copying):\n"
    for name, what in (("report.html", "report"), ("predictions.parquet", "predictions"), ("final", "model")):
        yield f"- [{what}]({(run / name).as_uri()}): {code(str(run / name))}"


def drift_page(drift: Drift) -> Iterator[str]:
    """The lines of a page on the text of a continued run."""
    old, new = drift.old, drift.new
    yield f"# {old.rows} old rows beside {new.rows} new ones\n"
    yield from (f"- {escape(warning, quote=False)}" for warning in drift.warnings)
    yield "" if drift.warnings else "Nothing differs by more than chance.\n"
    largest = sorted(new.labels, key=lambda label: -new.labels[label])[:MOST_LABELS]
    shares = [(f"labelled {code(label)}", percent(old.labels[label]), percent(new.labels[label])) for label in largest]
    shares.append(("mean confidence of the earlier model", percent(old.confidence), percent(new.confidence)))
    shares.append(("words that were not seen before", percent(old.unseen), percent(new.unseen)))
    yield from table(("share", "old:", "new:"), shares)
    yield "\nThe share of each shard's sampled rows that the earlier model and this one label alike:\n"
    shards = [(code(s.shard), str(s.rows), percent(s.agreement)) for s in drift.shards]
    yield from table(("shard", "rows:", "alike:"), shards)
