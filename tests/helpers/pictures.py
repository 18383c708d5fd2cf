"""Reports with and without their pictures, which take a third of the time of a tiny run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from listflow.pipeline.results import plots
from listflow.pipeline.results.plots import Plot
from listflow.pipeline.results.report import RunReport

Draw = Callable[[RunReport], tuple[Plot, ...]]
DRAW: Draw = plots.draw_plots


@contextmanager
def without_pictures() -> Iterator[None]:
    """Runs inside the block draw nothing."""
    with _drawing(lambda report: ()):
        yield


@contextmanager
def with_pictures() -> Iterator[None]:
    """Runs inside the block draw what runs draw."""
    with _drawing(DRAW):
        yield


@contextmanager
def _drawing(draw: Draw) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "draw_plots", draw)
        yield
