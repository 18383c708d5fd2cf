"""What the Prefect UI shows of a run: how far it is, the table of its rounds, and in the end the report.

Keys are stable, so every artifact has a history across runs. Texts come from anywhere: a page shows them, and neither
loads nor runs what they hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_progress_artifact, create_table_artifact

from listflow.flows.pages.lineage import LINEAGE, lineage_page
from listflow.flows.pages.pictures import pictures
from listflow.flows.pages.tables import (
    MOST_LABELS,
    balance_table,
    believed,
    calibration_table,
    rounds_table,
    weighed_table,
    weights_table,
)
from listflow.flows.server.client import RETRIES, ProgressArtifact, if_it_answers, report_link
from listflow.pipeline.method.drift import Drift
from listflow.pipeline.results.outcome import report_of, view_reports
from listflow.pipeline.results.rendering import final_row, trained_words
from listflow.pipeline.results.report import RunReport, TextTeacher, ViewReport, headline
from listflow.pipeline.run.run import Progress, Run
from listflow.pipeline.run.wording import (
    ACCURACY,
    CALIBRATION_ERROR,
    CONFIDENCE,
    EFFECTIVE_ROWS,
    KAPPA,
    MACRO_F1,
    PSEUDO_ROWS,
    UNIFORM_STEPS,
    ZERO_WEIGHTS,
    curve_told,
    decimals,
    duration,
    estimate_told,
    explained,
    percent,
)
from listflow.pipeline.storage.markdown import code, plain, table
from listflow.pipeline.storage.run_folder import RunFolder

PROGRESS, VIEWS, ROUNDS, BALANCE, WEIGHTS, WEIGHED, CALIBRATION, DRIFTED, REPORT = (
    "list-progress", "list-views", "list-rounds", "list-pseudo-labels", "list-meta-weights", "list-weighed-rows",
    "list-calibration", "list-drift", "list-report",
)  # fmt: skip
MOST_BYTES_OF_PICTURES = 300_000

Facts = dict[str, Any]


class Meter:
    """A watcher of a run: one progress artifact a training, updated every few seconds at most, and at its end."""

    def __init__(self) -> None:
        self._artifact = ProgressArtifact(PROGRESS)

    def opened(self, run: Run) -> None:
        """Nothing to show before the first long training."""

    def moved(self, progress: Progress) -> None:
        """Shows a training step, unless one was shown a moment ago; the last one always."""
        ends = progress.done == progress.total
        if progress.loss is None or not (ends or self._artifact.is_due()):
            return
        training = progress.view, progress.round, progress.total
        with if_it_answers():
            self._artifact.show(100 * progress.done / progress.total, _words(progress), training)


def show_start(run: Run) -> None:
    """What the rounds set out from, once it is known how far each of two views is believed, and why."""
    views = view_reports(run)
    if views:
        _page(views_page(views), VIEWS, f"How far each view is believed: {believed(views)}")
    show_rounds(run, ())


def show_rounds(run: Run, history: Sequence[Facts]) -> None:
    """The tables of all rounds so far; each item of ``history`` holds what a round's stages found."""
    # Every round leaves tables of its own in the list of a flow run.
    when = f"After round {len(history)} of {run.config.rounds.count}." if history else "At the start."
    _table(rounds_table(run, history), ROUNDS, f"{when} {_on_rounds(run)}")
    _table(balance_table(history), BALANCE, f"{when} {explained(PSEUDO_ROWS, CONFIDENCE)} Then those of every class.")
    _table(weights_table(history), WEIGHTS, f"{when} {explained(ZERO_WEIGHTS, EFFECTIVE_ROWS, UNIFORM_STEPS)}")
    words = (
        f"{when} The rows that its meta weights spoke for, above an equal share of 1, then those against, "
        "near 0: their labels would not have helped on labelled rows. Of equal ones the least sure come first."
    )
    _table(weighed_table(run, len(history)) if history else (), WEIGHED, words)


def show_report(run: Path) -> None:
    """Calibration of the final model where test rows allow it, drift where a run was continued, and the report."""
    report = report_of(run)
    words = "How sure the final model is of test rows, and how often it is right: the two should be alike"
    _table(calibration_table(report.figures.reliability or ()), CALIBRATION, words)
    if report.drift:
        words = "Whether the new rows look like the old ones, and how far the model has moved on each shard"
        _page(drift_page(report.drift), DRIFTED, words)
    if report.lineage:
        _page(
            lineage_page(report.lineage), LINEAGE, "Runs that went on from one another, beside the first and the best"
        )
    _page(_report(report, run), REPORT, plain(headline(report)))
    # Stages from the cache train nothing, and what a killed run has shown last must not be what is left.
    with if_it_answers(RETRIES):
        create_progress_artifact(100, PROGRESS, plain(f"all rounds are done: {headline(report)}"))


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


def _on_rounds(run: Run) -> str:
    """What stands above the table of rounds: how far each view is believed, and what its columns mean."""
    said = ["What each round reached, and its changes in points of test accuracy."]
    if run.others:
        said.append(f"Believed: {believed(view_reports(run))}.")
    return " ".join([*said, explained(KAPPA)])


def _table(rows: Iterable[Facts], key: str, words: str) -> None:
    """A table, unless it has no rows."""
    found = list(rows)
    if found:
        with if_it_answers(RETRIES):
            create_table_artifact(found, key, words)


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
        for name, found in {**before, final_row(report): report.final, **baselines}.items()
        if found
    ]
    if rows:
        yield from table(("model", f"{ACCURACY}:", f"{MACRO_F1}:", f"{CALIBRATION_ERROR}:"), rows)
        yield f"\n{plain(explained(CALIBRATION_ERROR))}\n"
    if report.estimate:
        yield f"\n{plain(estimate_told(report.estimate))}\n"
    if report.curve:
        yield f"\n{plain(curve_told(report.curve))}\n"
    yield (
        f"\n{plain(trained_words(report))}; backbone {plain(report.backbone.name)}; {report.data.labelled} labelled, "
        f"{report.data.unlabelled:,} unlabelled and {report.data.test:,} test rows; {duration(report.seconds)}.\n"
    )
    yield from pictures(run, MOST_BYTES_OF_PICTURES)
    yield from views_page(report.views)
    yield from (f"- {plain(notice)}" for notice in report.notices)
    yield "\nOn the machine that ran it (browsers may refuse to follow links to files; the paths are for copying):\n"
    files = RunFolder(run)
    shown = report_link(files.page) or files.page.as_uri()
    links = {"report": shown, "predictions": files.predictions.as_uri(), "model": files.final.as_uri()}
    for (what, link), path in zip(links.items(), (files.page, files.predictions, files.final), strict=True):
        yield f"- [{what}]({link}): {code(str(path))}"
