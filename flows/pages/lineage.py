"""The page of a lineage: what every run of it reached, and whether it slides."""

from __future__ import annotations

from collections.abc import Iterator

from listflow.pipeline.run.wording import interval, lineage_told, percent, slide_told
from listflow.pipeline.storage.lineage import Lineage
from listflow.pipeline.storage.markdown import code, plain, table

LINEAGE = "list-lineage"
MOST_RUNS = 100  # the latest ones


def lineage_page(found: Lineage) -> Iterator[str]:
    """The lines of a page, the oldest run first."""
    yield f"# {len(found.steps)} runs, each going on from the one before\n"
    fine = "It does not slide: the last run is about as good as the best." if found.best else "No accuracy is known."
    yield plain(slide_told(found) or fine)
    yield ""
    rows = []
    for step in found.steps[-MOST_RUNS:]:
        name = f"{code(step.run)} (best)" if step is found.best else code(step.run)
        news = "-" if step.new_rows is None else f"{step.new_rows:,}"
        reached = interval(step.range) if step.range else "-"
        verdict = "-" if step.promoted is None else "promoted" if step.promoted else "none promoted"
        rows.append((name, news, reached, percent(step.ece), verdict, plain(" ".join(step.warnings))))
    header = ("run", "new texts:", "accuracy (90 % interval):", "calibration error:", "student", "its new text")
    yield from table(header, rows)
    yield from (f"\n{plain(sentence)}" for sentence in lineage_told(found))
