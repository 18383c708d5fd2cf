"""The report as HTML, as JSON and as a table."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.table import Table
from rich.text import Text

from listflow.data.files import replacing
from listflow.pipeline.method.metrics import Metrics
from listflow.pipeline.results.report import RoundReport, RunReport, headline, trained_words
from listflow.pipeline.run.wording import capitalised, decimals, duration, percent
from listflow.pipeline.storage.run_folder import RunFolder

_COLUMNS = ("round", "pseudo\nrows", "mean\nconf.", "zero\nweights", "ESS", "test\nacc.", "verdict", "kappa")


def write_report(report: RunReport, folder: Path) -> None:
    """Write plots/*.png, report.html (one file, nothing external) and, last, report.json into ``folder``.

    Each file is written aside and renamed. The same report gives the same bytes.
    """
    # matplotlib is slow to import, and most who import this module draw nothing.
    from listflow.pipeline.results.plots import draw_plots

    files = RunFolder(folder)
    files.plots.mkdir(parents=True, exist_ok=True)
    plots = draw_plots(report)
    for plot in plots:
        _write(files.plots / f"{plot.name}.png", plot.png)
    words = {"headline": headline(report), "trained": trained_words(report)}
    page = _PAGES.get_template("report.html.j2").render(report=report, plots=plots, **words)
    _write(files.page, page.encode())
    text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    _write(files.report, text.encode())


def text_table(report: RunReport) -> Table:
    """The rounds as a table for the terminal, between rows for what they set out from and for the final model."""
    title = "\n".join(filter(None, (f"{report.task}, run {report.run_id}", trained_words(report))))
    table = Table(title=Text(title), caption=Text(headline(report)))
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name in {"round", "verdict"} else "right", no_wrap=True)
    words, begun = report.beginning
    table.add_row(words, "", "", "", "", _accuracy(begun), "", "", end_section=True)
    for record in report.rounds:
        table.add_row(*_cells(record), end_section=record is report.rounds[-1])
    table.add_row("final", "", "", "", "", _accuracy(report.final), "", "")
    return table


def _accuracy(metrics: Metrics | None) -> str:
    return percent(metrics.accuracy if metrics else None)


def _cells(record: RoundReport) -> tuple[str, ...]:
    return (
        str(record.round),
        f"{record.pseudo.rows:,}",
        percent(record.pseudo.mean_confidence),
        percent(record.reweight.zero_share),
        decimals(record.reweight.effective_sample_size, 1),
        _accuracy(record.student),
        "promoted" if record.promoted else "kept",
        decimals(record.agreement),
    )


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
_PAGES.filters |= {
    "capitalised": capitalised,
    "percent": percent,
    "decimals": decimals,
    "duration": duration,
    "base64": lambda content: b64encode(content).decode(),
}
