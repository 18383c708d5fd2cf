"""What a run did, in pictures: functions from a ``RunReport`` to a Figure, or None without data.

Only matplotlib's object API and no global figure, so that threads and servers can draw.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import LogFormatter, MaxNLocator

from listflow.pipeline.method.metrics import ReliabilityBin
from listflow.pipeline.results.report import RoundReport, RunReport, lost
from listflow.pipeline.run.wording import capitalised, percent

# Okabe and Ito's colours stay apart for every kind of colour blindness.
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#6b6b6b"
PALETTE = (BLUE, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", VERMILION, "#F0E442", "#3a3a3a")
HATCHES = ("", "////", "....")
STACKS = 20
LABEL_WIDTH = 22


@dataclass(frozen=True)
class Plot:
    """A drawn plot: file name without suffix, what one sees in words, and the PNG's bytes."""

    name: str
    caption: str
    png: bytes


def draw_plots(report: RunReport) -> tuple[Plot, ...]:
    """Every plot that ``report`` has data for; the same report gives the same bytes."""
    figures = ((draw.__name__, draw(report)) for draw in PLOTS)
    return tuple(_plot(name, figure) for name, figure in figures if figure is not None)


def progress(report: RunReport) -> Figure | None:
    """Accuracy per round with the lines to beat; without test rows, agreement of student and teacher."""
    if not report.rounds:
        return None
    words, begun = report.beginning
    if begun is None:
        return _agreement(report)
    figure, axes = _canvas("Accuracy on test rows (%)", "Round")
    judged = [(r.round, r.student.accuracy, r.promoted) for r in report.rounds if r.student]
    before, start = begun.accuracy, (report.start or begun).accuracy
    axes.plot([0, *(j[0] for j in judged)], [start, *(j[1] for j in judged)], color=BLUE, alpha=0.5)
    _points(axes, judged)
    if report.start:
        axes.scatter([0], [start], 46, color=BLUE, marker="D", label="Start, with the pool", zorder=3)
    _views(axes, report)
    axes.axhline(before, color=VERMILION, linestyle="--", label=capitalised(words), zorder=1)
    if report.zero_shot:
        axes.axhline(report.zero_shot.accuracy, color=GREY, linestyle=":", label="No labels (zero-shot)")
    after = report.final.accuracy if report.final else before
    axes.yaxis.set_major_formatter(_in_percent)
    _legend(axes, *axes.get_legend_handles_labels())
    outcome = "A loss" if lost(report) else "Accuracy"
    return _title(figure, f"{outcome}: {percent(before)} with the {words}, {percent(after)} at the end")


def balance(report: RunReport) -> Figure | None:
    """Pseudo-labelled rows per round, stacked by class."""
    if not report.rounds:
        return None
    figure, axes = _canvas("Pseudo-labelled rows", "Round")
    stacks = _stacks(report)
    numbers, base, bars = [r.round for r in report.rounds], np.zeros(len(report.rounds), dtype=int), []
    for index, (_, counts) in enumerate(stacks):
        again, colour = divmod(index, len(PALETTE))
        look: dict[str, Any] = {"color": PALETTE[colour], "hatch": HATCHES[again]}
        bars.append(axes.bar(numbers, counts, 0.7, base, edgecolor="white", linewidth=0.5, **look))
        base += counts
    figure.set_figheight(max(4, 1 + 0.2 * len(stacks)))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    # In the order of the stacks, and by hand: matplotlib hides labels that start with an underscore.
    _legend(axes, bars[::-1], [drawn(label, report.labels) for label, _ in stacks[::-1]])
    last = report.rounds[-1].pseudo
    most = max(report.labels, key=lambda label: last.per_class.get(label, 0))
    share = percent(last.per_class.get(most, 0) / max(last.rows, 1))
    return _title(figure, f"Pseudo labels: “{drawn(most, report.labels)}” gets most in round {numbers[-1]} ({share})")


def meta_weights(report: RunReport) -> Figure | None:
    """How often each meta weight occurs, one line a round."""
    data = report.figures.meta_weights
    if data is None or not any(map(any, data.counts.values())):
        return None
    figure, axes = _canvas("Pseudo-labelled rows (%, log scale)", "Meta weight (1 = the whole batch)")
    colours = matplotlib.colormaps["viridis_r"](np.linspace(0.15, 1, len(data.counts)))
    for (number, counts), colour in zip(sorted(data.counts.items()), colours, strict=True):
        shares = np.array(counts) / max(sum(counts), 1)
        axes.stairs(shares, data.edges, color=colour, label=f"Round {number}", linewidth=1.6)
    axes.set_yscale("log")
    used = np.flatnonzero(np.sum(list(data.counts.values()), axis=0))
    axes.set_xlim(0, data.edges[used[-1] + 1] if used.size else None)
    axes.yaxis.set_major_formatter(_in_percent)
    axes.yaxis.set_minor_formatter(_InPercentBetween())
    _legend(axes, *axes.get_legend_handles_labels())
    return _title(figure, _weights_title(report.rounds))


def reliability(report: RunReport) -> Figure | None:
    """Accuracy of the final model in each confidence bin, above the number of rows in that bin."""
    bins = [part for part in report.figures.reliability or () if part.count]
    if not bins:
        return None
    figure = Figure(figsize=(7.2, 5.4), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    _style(upper, "Accuracy (%)", "")
    _style(lower, "Test rows", "Confidence of the final model (%)")
    left, width = [b.lower for b in bins], [b.upper - b.lower for b in bins]
    bar = {"align": "edge", "edgecolor": "white"}
    upper.bar(left, [b.accuracy for b in bins], width, color="#8fc1e3", label="Accuracy in the bin", **bar)
    upper.plot([0, 1], [0, 1], color=VERMILION, linestyle="--", label="Perfect calibration")
    counted = lower.bar(left, [b.count for b in bins], width, color=GREY, **bar)
    lower.bar_label(counted, fmt="{:,.0f}", fontsize=8)
    lower.margins(y=0.25)
    upper.set(xlim=(0, 1), ylim=(0, 1))
    upper.yaxis.set_major_formatter(_in_percent)
    lower.xaxis.set_major_formatter(_in_percent)
    _legend(upper, *upper.get_legend_handles_labels())
    return _title(figure, _reliability_title(bins))


def confusion(report: RunReport) -> Figure | None:
    """Test rows by true and predicted class; the colour is the share of the true class."""
    if not report.figures.confusion:
        return None
    counts = np.array(report.figures.confusion)
    size = len(counts)
    figure = Figure(figsize=(max(5.6, 2.8 + 0.4 * size), max(4.2, 2 + 0.4 * size)), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        ink = "white" if shares[row, column] > 0.65 else "#222222" if count else "#b0b0b0"
        axes.text(column, row, count, ha="center", va="center", color=ink, fontsize=10 if size < 8 else 8)
    names = [drawn(label, report.labels) for label in report.labels]
    axes.set_xticks(range(size), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), names)
    axes.set(xlabel="Predicted class", ylabel="True class")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=9)
    return _title(figure, _confusion_title(counts, report.labels))


PLOTS = (progress, balance, meta_weights, reliability, confusion)


def shown(label: str) -> str:
    """``label`` on one short line, with dollar signs that start no formula."""
    line = " ".join(label.split())
    short = line if len(line) <= LABEL_WIDTH else f"{line[: LABEL_WIDTH - 1]}…"
    return short.replace("$", r"\$")


def drawn(label: str, labels: Sequence[str]) -> str:
    """``label`` as ``shown``, or its number among ``labels`` where the font lacks a character of it."""
    line = shown(label)
    return line if _font_has(line) else f"label {labels.index(label) + 1}"


def numbered(labels: Sequence[str]) -> dict[str, str]:
    """What stands for those of ``labels`` that the font cannot draw, and what they are: a legend for the page."""
    names = {drawn(label, labels): label for label in labels}
    return {name: label for name, label in names.items() if name != shown(label)}


@cache
def _characters() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def _font_has(text: str) -> bool:
    return _characters().issuperset(map(ord, text))


def _agreement(report: RunReport) -> Figure | None:
    known = [(r.round, r.agreement, r.promoted) for r in report.rounds if r.agreement is not None]
    if not known:
        return None
    figure, axes = _canvas("Agreement with the teacher (Cohen's kappa)", "Round")
    axes.plot([k[0] for k in known], [k[1] for k in known], color=BLUE, alpha=0.5)
    _points(axes, known)
    _legend(axes, *axes.get_legend_handles_labels())
    return _title(figure, f"Agreement of student and teacher: kappa {known[-1][1]:.2f} in the last round")


def _points(axes: Axes, judged: Sequence[tuple[int, float, bool]]) -> None:
    """Filled where the student became the teacher, hollow where the old teacher stayed."""
    looks = ((True, BLUE, "Student, promoted"), (False, "white", "Student, not promoted"))
    for promoted, fill, label in looks:
        chosen = [(number, score) for number, score, verdict in judged if verdict is promoted]
        if chosen:
            across, up = zip(*chosen, strict=True)
            axes.scatter(across, up, 46, color=fill, edgecolor=BLUE, label=label, zorder=3)


def _views(axes: Axes, report: RunReport) -> None:
    """What each view reaches by itself, below what they reach together."""
    for view, colour in zip(report.views, PALETTE[2:], strict=False):
        known = [(0, view.start), *((r.round, r.students.get(view.view)) for r in report.rounds)]
        across, up = zip(*((n, m.accuracy if m else np.nan) for n, m in known), strict=True)
        axes.plot(across, up, color=colour, linewidth=1, marker=".", label=f"{capitalised(view.view)} view", zorder=2)


def _stacks(report: RunReport) -> list[tuple[str, list[int]]]:
    """(label, rows per round) in label order; what a legend cannot hold is joined in one last stack."""
    rows = {label: [r.pseudo.per_class.get(label, 0) for r in report.rounds] for label in report.labels}
    if len(rows) <= STACKS:
        return list(rows.items())
    largest = sorted(rows, key=lambda label: -sum(rows[label]))[: STACKS - 1]
    rest = [counts for label, counts in rows.items() if label not in largest]
    joined = np.sum(rest, axis=0).tolist()
    return [*((label, rows[label]) for label in rows if label in largest), (f"{len(rest)} others", joined)]


def _weights_title(rounds: Sequence[RoundReport]) -> str:
    known = [r for r in rounds if r.reweight.zero_share is not None]
    if not known:
        return "Meta weights of the pseudo-labelled rows"
    return f"Meta weights: {percent(known[-1].reweight.zero_share)} are zero in round {known[-1].round}"


def _reliability_title(bins: Sequence[ReliabilityBin]) -> str:
    gap = sum(b.count * (b.confidence - b.accuracy) for b in bins) / sum(b.count for b in bins)
    side = "above" if gap >= 0 else "below"
    return f"Calibration: confidence is {100 * abs(gap):.1f} points {side} accuracy on average"


def _confusion_title(counts: np.ndarray, labels: Sequence[str]) -> str:
    wrong = counts - np.diag(np.diag(counts))
    gold, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    if not wrong[gold, predicted]:
        return "Confusion: no test row is wrong"
    pair = f"“{drawn(labels[gold], labels)}” is taken for “{drawn(labels[predicted], labels)}”"
    return f"Confusion: most often {pair} ({wrong[gold, predicted]} of {counts[gold].sum()} rows)"


def _canvas(ylabel: str, xlabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, 4), layout="constrained")
    axes = figure.subplots()
    _style(axes, ylabel, xlabel)
    if xlabel == "Round":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axes


def _style(axes: Axes, ylabel: str, xlabel: str) -> None:
    axes.set(ylabel=ylabel, xlabel=xlabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)


def _legend(axes: Axes, handles: Sequence[Any], labels: Sequence[str]) -> None:
    place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0}
    axes.legend(handles, labels, frameon=False, fontsize=8.5, **place)


class _InPercentBetween(LogFormatter):
    """Of the ticks between powers of ten, those that such an axis needs, in percent as the others."""

    def __call__(self, share: float, position: int | None = None) -> str:
        return _in_percent(share, 0) if super().__call__(share, position) else ""


def _in_percent(share: float, _: float) -> str:
    return f"{100 * share:g}"


def _title(figure: Figure, title: str) -> Figure:
    lines = textwrap.wrap(title, int(figure.get_figwidth() * 10))
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=11.5, weight="bold")
    return figure


def _plot(name: str, figure: Figure) -> Plot:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150, metadata={"Software": None})
    return Plot(name, figure.get_suptitle().replace("\n", " ").replace(r"\$", "$"), content.getvalue())
