"""What the plots of a report say on their axes and above them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from reports import make_report

from listflow.pipeline.method.metrics import Metrics
from listflow.pipeline.results.plots import meta_weights, progress
from listflow.pipeline.results.report import FigureData, WeightHistogram


def labels_of_ticks(counts: tuple[int, ...]) -> list[str]:
    """The words beside the axis of shares in the plot of meta weights of one round."""
    histogram = WeightHistogram(tuple(np.linspace(0, 1, len(counts) + 1).tolist()), {1: counts})
    figure = meta_weights(make_report(figures=FigureData(meta_weights=histogram)))
    figure.savefig(io.BytesIO())
    axis, (low, high) = figure.axes[0].yaxis, figure.axes[0].get_ylim()
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [tick.label1.get_text() for tick in ticks if low <= tick.get_loc() <= high and tick.label1.get_text()]


@pytest.mark.parametrize("counts", [(30, 40, 30), (21, 79), (500, 300, 200), (900, 90, 9, 1), (5, 5)])
def test_shares_of_meta_weights_are_in_percent_however_little_they_span(counts: tuple[int, ...]) -> None:
    shares = [float(label) for label in labels_of_ticks(counts)]
    assert shares
    low, high = (100 * found(count for count in counts if count) / sum(counts) for found in (min, max))
    assert all(low / 5 <= share <= high * 5 for share in shares)


def test_a_plot_calls_a_loss_one() -> None:
    assert progress(make_report(final=Metrics(0.649, 0.64, 0.1))).get_suptitle().startswith("A loss: 66.1 % with the")
    assert progress(make_report()).get_suptitle().startswith("Accuracy: 66.1 % with the")
