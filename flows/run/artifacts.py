"""What the Prefect UI shows of a run: how far it is, the table of its rounds, and in the end the report.

Keys are stable, so every artifact has a history across runs. Texts come from anywhere: a page shows them, and neither
loads nor runs what they hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from listflow.data.errors import shortened
from listflow.flows.server.client import RETRIES, ProgressArtifact, if_it_answers, report_link
from listflow.pipeline.results.outcome import report_of
from listflow.pipeline.results.report import Drift, RunReport, TextTeacher, ViewReport, headline, trained_words
from listflow.pipeline.run.run import Progress, Run
from listflow.pipeline.run.wording import curve_told, decimals, duration, estimate_told, percent
from listflow.pipeline.storage.markdown import code, plain, table
from listflow.pipeline.storage.run_folder import RunFolder
from listflow.pipeline.training.committee import reached, reached_by_labels
from listflow.pipeline.training.review import weighed_rows

PROGRESS, ROUNDS, BALANCE, WEIGHTS, WEIGHED, CALIBRATION, DRIFTED, REPORT = (
    "list-progress", "list-rounds", "list-pseudo-labels", "list-meta-weights", "list-weighed-rows", "list-calibration",
    "list-drift", "list-report",
)  # fmt: skip
MOST_LABELS, MOST_ROWS, LONGEST_TEXT = 100, 10, 120

Facts = dict[str, Any]


class Meter:
    """A watcher of a run: one progress artifact a training, updated every few seconds at most."""

    def __init__(self) -> None:
        self._artifact = ProgressArtifact(PROGRESS)

    def opened(self, run: Run) -> None:
        """Nothing to show before the first long training."""

    def moved(self, progress: Progress) -> None:
        """Shows a training step, unless one was shown a moment ago."""
        if progress.loss is None or not self._artifact.is_due():
            return
        training = progress.view, progress.round, progress.total
        with if_it_answers():
            self._artifact.show(100 * progress.done / progress.total, _words(progress), training)


def show_rounds(run: Run, history: Sequence[Facts]) -> None:
    """The tables of all rounds so far; each item of ``history`` holds what a round's stages found."""
    tables = {
        ROUNDS: ("Every round and its verdict; what it changed in test accuracy", list(_rounds(run, history))),
        BALANCE: ("Rows of every class by the teacher's top label, the largest classes first", map(_balance, history)),
        WEIGHTS: (
            "How the meta weights of each round's reweighted steps were spread",
            [row for facts in history for row in _weights(facts)],
        ),
        WEIGHED: (
            "The rows of the last round that its meta weights spoke for and against; 1 is an equal share",
            list(_weighed(run, len(history))),
        ),
    }
    for key, (words, rows) in tables.items():
        with if_it_answers(RETRIES):
            create_table_artifact(list(rows), key, words)


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
    _page(_report(report, run), REPORT, plain(headline(report)))


def drift_page(drift: Drift) -> Iterator[str]:
    """The lines of a page on the text of a continued run."""
    old, new = drift.old, drift.new
    yield f"# {old.rows} old rows beside {new.rows} new ones\n"
    yield from (f"- {plain(warning)}" for warning in drift.warnings)
    yield "" if drift.warnings else "Nothing differs by more than chance.\n"
    largest = sorted(new.labels, key=lambda label: -new.labels[label])[:MOST_LABELS]
    shares = [(f"labelled {code(label)}", percent(old.labels[label]), percent(new.labels[label])) for label in largest]
    shares.append(("mean confidence of the earlier model", percent(old.confidence), percent(new.confidence)))
    shares.append(("words that were not seen before", percent(old.unseen), percent(new.unseen)))
    shares.append(("tokens that the backbone does not know", percent(old.unknown), percent(new.unknown)))
    yield from table(("share", "old:", "new:"), shares)
    yield "\nThe share of each shard's sampled rows that the earlier model and this one label alike:\n"
    shards = [(code(s.shard), str(s.rows), percent(s.agreement)) for s in drift.shards]
    yield from table(("shard", "rows:", "alike:"), shards)


def views_page(views: Sequence[ViewReport]) -> Iterator[str]:
    """The lines of a page on two views, and on what the text teacher is made of; none without views."""
    if not views:
        return
    yield "\n## Two views\n"
    for view in views:
        made = f"stage {view.stage}, head {view.head}"
        yield f"- **{view.view} view**, believed {percent(view.weight)} ({plain(made)}): {plain(view.evidence)}"
    for teacher in (view.teacher for view in views if view.teacher):
        yield "\nThe text teacher is made of label vectors from:\n"
        made_of = [(plain(each.name), percent(each.weight)) for each in teacher.candidates]
        yield from table(("candidate", "weight:"), made_of)
        yield f"\nHow likely it is that names of labels tell something: {percent(teacher.names_tell)}.\n"
        yield from _shares(teacher)
    yield ""


def _shares(teacher: TextTeacher) -> Iterator[str]:
    """A table of the largest classes."""
    sides = {"pool, estimated:": teacher.pool_shares, "labelled rows:": teacher.labelled_shares}
    if teacher.stated_shares:
        sides["pool, stated:"] = teacher.stated_shares
    largest = sorted(teacher.pool_shares, key=lambda label: -teacher.pool_shares[label])[:MOST_LABELS]
    rows = [(code(label), *(percent(shares.get(label)) for shares in sides.values())) for label in largest]
    yield from table(("label", *sides), rows)


def _words(progress: Progress) -> str:
    model = f"student of round {progress.round}" if progress.round else "teacher"
    model = " ".join(filter(None, (progress.view, model)))
    return f"{model}: {progress.phase}, step {progress.done} of {progress.total}, loss {decimals(progress.loss, 3)}"


def _rounds(run: Run, history: Sequence[Facts]) -> Iterator[Facts]:
    begun = "on the earlier model" if run.parent else "on labels alone"
    accuracies, alone = [_accuracy(reached(run, n)) for n in range(len(history) + 1)], _accuracy(reached_by_labels(run))
    for facts in history:
        own = accuracies[facts["round"]]
        each = {f"{view.view} view": "not computed" for view in run.views if run.others}
        each |= {f"{view} view": percent(_accuracy(found["test"])) for view, found in facts["students"].items() if each}
        yield {
            "round": facts["round"],
            "accuracy": percent(own),
            "on its teacher": _points(own, accuracies[facts["teacher_round"]]),
            begun: _points(own, alone),
            **each,
            "verdict": "promoted" if facts["promoted"] else "kept",
            "kappa": decimals(facts["agreement"]),
            "confidence": percent(facts["mean_confidence"]),
            "pseudo rows": facts["rows"],
            "time": duration(sum(found["seconds"] for found in facts["students"].values())),
            "reason": plain(facts["reason"]),
        }


def _accuracy(metrics: Facts | None) -> float | None:
    return metrics["accuracy"] if metrics else None


def _points(after: float | None, before: float | None) -> str:
    """A change in percentage points, with its sign."""
    return "-" if after is None or before is None else f"{100 * (after - before):+.1f} points"


def _balance(facts: Facts) -> Facts:
    largest = sorted(facts["per_class"].items(), key=lambda item: -item[1])[:MOST_LABELS]
    return {"round": facts["round"], **dict(largest)}


def _weights(facts: Facts) -> Iterator[Facts]:
    """A row for each student of a round."""
    for view, student in facts["students"].items():
        found = student["reweight"]
        yield {
            "round": facts["round"],
            "view": view,
            "engine": found["engine"],
            "zero weights": percent(found["zero_share"]),
            "effective sample size": decimals(found["effective_sample_size"], 1),
            "steps with uniform weights": found["uniform_steps"],
        }


def _weighed(run: Run, number: int) -> Iterator[Facts]:
    for side, rows in zip(("for", "against"), weighed_rows(run, number, MOST_ROWS), strict=True):
        for row in rows:
            text = shortened(row.text, LONGEST_TEXT)
            yield {
                "spoke": side, "row id": code(row.row_id), "text": code(text),
                "label": code(row.label), "weight": decimals(row.weight)
            }  # fmt: skip


def _page(lines: Iterator[str], key: str, words: str) -> None:
    with if_it_answers(RETRIES):
        create_markdown_artifact("\n".join(lines), key, words)


def _report(report: RunReport, run: Path) -> Iterator[str]:
    yield f"# {plain(report.task)}, run {plain(report.run_id)}"
    yield f"\n{plain(headline(report))}\n"
    words, begun = report.beginning
    baselines = {f"{name} on the same embeddings": found for name, found in report.baselines.items()}
    before = {"no labels": report.zero_shot, words: begun, "start, with the pool": report.start}
    rows = [
        (plain(name), percent(found.accuracy), percent(found.macro_f1), percent(found.ece))
        for name, found in {**before, "final": report.final, **baselines}.items()
        if found
    ]
    yield from table(("model", "accuracy:", "macro F1:", "calibration error:"), rows) if rows else ()
    if report.estimate:
        yield f"\n{plain(estimate_told(report.estimate))}\n"
    if report.curve:
        yield f"\n{plain(curve_told(report.curve))}\n"
    yield (
        f"\n{plain(trained_words(report))}; backbone {plain(report.backbone.name)}; {report.data.labelled} labelled, "
        f"{report.data.unlabelled:,} unlabelled and {report.data.test:,} test rows; {duration(report.seconds)}.\n"
    )
    yield from views_page(report.views)
    yield from (f"- {plain(notice)}" for notice in report.notices)
    yield "\nOn the machine that ran it (browsers may refuse to follow links to files; the paths are for copying):\n"
    files = RunFolder(run)
    shown = report_link(files.page) or files.page.as_uri()
    links = {"report": shown, "predictions": files.predictions.as_uri(), "model": files.final.as_uri()}
    for (what, link), path in zip(links.items(), (files.page, files.predictions, files.final), strict=True):
        yield f"- [{what}]({link}): {code(str(path))}"
