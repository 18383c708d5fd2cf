"""The page of a lineage in Prefect's pages."""

from __future__ import annotations

from listflow.flows.pages.lineage import lineage_page
from listflow.pipeline.storage.lineage import Lineage, Step


def step(name: str, accuracy: float | None, *warnings: str) -> Step:
    test = "one" if accuracy is not None else ""
    return Step(name, 1200, accuracy, 0.093, test, 200, None, False, warnings)


def test_a_slide_and_every_run_are_told_as_text() -> None:
    found = Lineage((step("tickets", 0.9), step("[x](y)", 0.8, "The new text has <b>other</b> words.")))
    page = "\n".join(lineage_page(found))
    assert page.startswith("# 2 runs, each going on from the one before\n\nThe lineage slides: 80.0 % on")
    assert "| `tickets` (best) | 1,200 | 90.0 % (86.0 to 93.0 %) | 9.3 % | none promoted |  |" in page
    assert "| `[x](y)` | 1,200 | 80.0 % (75.0 to 84.2 %) | 9.3 % |" in page
    assert "<b>" not in page.replace("\\<b", "")


def test_what_is_not_known_is_said() -> None:
    unknown = "\n".join(lineage_page(Lineage((step("a", None), step("b", None)), "what z reached is not known here.")))
    assert "No accuracy is known." in unknown
    assert "What z reached is not known here." in unknown
    fine = "\n".join(lineage_page(Lineage((step("a", 0.8), step("b", 0.8)))))
    assert "It does not slide: the last run is about as good as the best." in fine
