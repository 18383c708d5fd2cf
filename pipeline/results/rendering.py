"""The report as HTML, as JSON and as a table."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import fields
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.table import Table
from rich.text import Text

from listflow.data.files import REFUSED, refusing, replacing
from listflow.pipeline.method.metrics import Metrics
from listflow.pipeline.results.report import RoundReport, RunReport, advice, headline, summary
from listflow.pipeline.run.wording import (
    ACCURACY,
    CALIBRATION_ERROR,
    CONFIDENCE,
    EFFECTIVE_ROWS,
    KAPPA,
    MACRO_F1,
    MEANS,
    PSEUDO_ROWS,
    UNIFORM_STEPS,
    ZERO_WEIGHTS,
    capitalised,
    curve_told,
    decimals,
    duration,
    estimate_told,
    explained,
    interval,
    lineage_told,
    percent,
    points,
    slide_told,
    trained,
)
from listflow.pipeline.storage.lineage import Lineage
from listflow.pipeline.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from listflow.pipeline.results.plots import Plot

_ROUND, _VERDICT = "round", "verdict"
# Of two words each; a column of the terminal is as wide as the longer one.
_ROWS, _CONFIDENCE, _EFFECTIVE = (name.replace(" ", "\n") for name in (PSEUDO_ROWS, CONFIDENCE, EFFECTIVE_ROWS))
Cells = dict[str, str]
NAMES: dict[str, str] = {
    "calibration_error": CALIBRATION_ERROR, "kappa": KAPPA, "pseudo_rows": PSEUDO_ROWS, "confidence": CONFIDENCE,
    "zero_weights": ZERO_WEIGHTS, "effective_rows": EFFECTIVE_ROWS, "uniform_steps": UNIFORM_STEPS,
    "accuracy": ACCURACY, "macro_f1": MACRO_F1,
}  # fmt: skip
LATEST = 10  # runs of a lineage that a terminal shows


def write_report(report: RunReport, folder: Path) -> None:
    """Write plots/*.png, report.html (one file, nothing external) and, last, report.json into ``folder``.

    Each file is written aside and renamed. The same report gives the same bytes. InputError where they cannot be
    written.
    """
    with refusing(
        lambda reason: (
            f"{folder}: the report cannot be written there ({reason}); free some space, or move away what is in its "
            "place, then give the same command again."
        ),
        reasons=REFUSED,
    ):
        _write_report(report, RunFolder(folder))


def _write_report(report: RunReport, files: RunFolder) -> None:
    files.plots.mkdir(parents=True, exist_ok=True)
    plots = _plots(report)
    for plot in plots:
        _write(files.plots / f"{plot.name}.png", plot.png)
    _write(files.page, page_of(report, plots).encode())
    text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    _write(files.report, text.encode())


def page_of(report: RunReport, plots: Sequence[Plot] | None = None) -> str:
    """The report as one HTML page, nothing external; with ``plots`` that are drawn already."""
    # A figure and its % stay on one line of the large type.
    told = summary(report).replace(" %", "\N{NO-BREAK SPACE}%")
    words = {"summary": told, "advice": advice(report), "trained": trained_words(report)}
    drawn = _plots(report) if plots is None else plots
    return _PAGES.get_template("report.html.j2").render(
        report=report, plots=drawn, numbered=_numbered(report.labels), final_row=final_row(report), **NAMES, **words
    )  # fmt: skip


def trained_words(report: RunReport) -> str:
    """What was trained, in a line; empty for a report of an earlier version."""
    if not report.stage:
        return ""
    heard = [view for view in report.views if view.weight]
    stage = " + ".join(view.stage for view in heard if view.stage != "none") or ("none" if heard else report.stage)
    head = " + ".join(view.head for view in heard) or report.head
    return trained(stage, head, report.trainable_parameters, report.backbone.parameters)


def _plots(report: RunReport) -> Sequence[Plot]:
    # matplotlib is slow to import, and most who import this module draw nothing.
    from listflow.pipeline.results.plots import draw_plots

    return draw_plots(report)


def _numbered(labels: Sequence[str]) -> dict[str, str]:
    from listflow.pipeline.results.plots import numbered

    return numbered(labels)


class ShownReport(RunReport):
    """A report that a notebook shows as its page."""

    @staticmethod
    def of(report: RunReport) -> ShownReport:
        return ShownReport(**{field.name: getattr(report, field.name) for field in fields(report)})

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{escape(page_of(self))}" sandbox style="width: 100%; height: 36rem; border: 0"></iframe>'
        )


def text_table(report: RunReport) -> Table:
    """The rounds as a table for the terminal, between rows for what they set out from and for the final model.

    As wide as eighty columns take: of two views it has the accuracy of each, and neither rows nor meta weights, which
    the page has.
    """
    title = "\n".join(filter(None, (f"{report.task}, run {report.run_id}", trained_words(report))))
    table = Table(title=Text(title), caption=Text("\n".join(_said_below(report))))
    names = _columns(report)
    for name in names:
        table.add_column(name, justify="left" if name in {_ROUND, _VERDICT} else "right", no_wrap=True)
    before, after = (
        _before(report),
        {_ROUND: final_row(report).replace(" ", "\n", 1), ACCURACY: _accuracy(report.final)},
    )
    for section in (before, [*map(_cells, report.rounds)], [after]):
        for cells in section:
            table.add_row(*(cells.get(name, "") for name in names), end_section=cells is section[-1])
    return table


def final_row(report: RunReport) -> str:
    """What the final model is called in a table: by its round, or as the start."""
    number = report.final_round
    return f"final, round {number}" if number else "final, the start" if report.rounds else "final"


def lineage_table(found: Lineage) -> Table:
    """The runs of a lineage for the terminal, the oldest first, and what of them cannot be compared.

    Of many it has the first, the best and the latest.
    """
    table = Table(title="the lineage, the oldest first", caption=Text("\n".join(lineage_told(found))))
    for name in ("run", "new texts", "accuracy (90 % interval)", "calibration\nerror", "student"):
        table.add_column(name, justify="left" if name in {"run", "student"} else "right", no_wrap=True)
    last = len(found.steps) - LATEST
    kept = [n for n, step in enumerate(found.steps) if n == 0 or n >= last or step is found.best]
    for before, place in pairwise([-1, *kept]):
        if place > before + 1:
            table.add_row("...")
        step = found.steps[place]
        name = f"{step.run} (best)" if step is found.best else step.run
        news = "-" if step.new_rows is None else f"{step.new_rows:,}"
        reached = interval(step.range) if step.range else "-"
        verdict = "-" if step.promoted is None else "promoted" if step.promoted else "none promoted"
        table.add_row(name, news, reached, percent(step.ece), verdict)
    return table


def _columns(report: RunReport) -> tuple[str, ...]:
    if not report.views:
        return _ROUND, _VERDICT, ACCURACY, KAPPA, _ROWS, _CONFIDENCE, _EFFECTIVE
    return _ROUND, _VERDICT, ACCURACY, *(_of(view.view) for view in report.views), KAPPA, _CONFIDENCE


def _of(view: str) -> str:
    """The column of a view's own accuracy."""
    return f"{view}\nview"


def _before(report: RunReport) -> list[Cells]:
    """What the rounds set out from: labels alone, or an earlier model; and with the pool, where round 0 uses it."""
    words, begun = report.beginning
    own = {} if report.parent else {_of(view.view): _accuracy(view.labelled_only) for view in report.views}
    found = [{_ROUND: words, ACCURACY: _accuracy(begun), **own}]
    if report.start is not None:
        own = {_of(view.view): _accuracy(view.start) for view in report.views}
        found.append({_ROUND: "start, with\nthe pool", ACCURACY: _accuracy(report.start), **own})
    return found


def _accuracy(metrics: Metrics | None) -> str:
    return percent(metrics.accuracy if metrics else None)


def _cells(record: RoundReport) -> Cells:
    return {
        _ROUND: str(record.round),
        _ROWS: f"{record.pseudo.rows:,}",
        _CONFIDENCE: percent(record.pseudo.mean_confidence),
        _EFFECTIVE: decimals(record.reweight.effective_sample_size, 1),
        ACCURACY: _accuracy(record.student),
        _VERDICT: "promoted" if record.promoted else "kept",
        KAPPA: decimals(record.agreement),
        **{_of(view): _accuracy(student) for view, student in record.students.items()},
    }


def _said_below(report: RunReport) -> Iterator[str]:
    yield headline(report)
    if report.rounds:
        yield explained(KAPPA) if report.views else explained(KAPPA, EFFECTIVE_ROWS)
    if report.estimate:
        yield estimate_told(report.estimate)
    if report.curve:
        yield curve_told(report.curve)
    for view in report.views:
        yield f"{view.view} view, believed {percent(view.weight)}: {view.evidence}"
    if report.baselines:
        reached = ", ".join(f"{name} {_accuracy(found)}" for name, found in report.baselines.items())
        yield f"On the same sentence embeddings: {reached}."


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as aside:
        aside.write_bytes(content)


_PAGES = Environment(
    loader=PackageLoader("listflow.pipeline.results"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_PAGES.globals |= {"explained": explained, "means": MEANS}
_PAGES.filters |= {
    "capitalised": capitalised,
    "percent": percent,
    "decimals": decimals,
    "duration": duration,
    "interval": interval,
    "points": points,
    "estimate_told": estimate_told,
    "curve_told": curve_told,
    "slide_told": slide_told,
    "lineage_told": lineage_told,
    "base64": lambda content: b64encode(content).decode(),
}
