"""Plots on a page: small ones, of a bounded size in all."""

from __future__ import annotations

from pathlib import Path

from reports import make_report

from listflow.flows.pages.pictures import pictures
from listflow.pipeline.results.rendering import write_report


def test_pictures_of_a_page_are_small_and_say_what_was_left_out(drawn: None, tmp_path: Path) -> None:
    written = tmp_path / "run"
    write_report(make_report(), written)
    lines = list(pictures(written, 300_000))
    assert [line[: line.index("(")].strip() for line in lines] == [
        "![progress]", "![balance]", "![meta weights]", "![reliability]", "![confusion]",
    ]  # fmt: skip
    assert all("](data:image/png;base64,iVBOR" in line for line in lines)
    assert sum(map(len, lines)) < 300_000
    fewer = list(pictures(written, sum(map(len, lines[:2]))))
    assert fewer[:2] == lines[:2]
    assert fewer[2].strip() == (
        "Not on this page, but in the folder of the run: plots/meta_weights.png, plots/reliability.png, "
        "plots/confusion.png."
    )
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "progress.png").write_bytes(b"\x89PNG")
    (tmp_path / "plots" / "balance.png").write_bytes((written / "plots" / "balance.png").read_bytes()[:200])
    assert list(pictures(tmp_path, 300_000)) == [
        "\nNot on this page, but in the folder of the run: plots/progress.png, plots/balance.png.\n"
    ]
    assert list(pictures(tmp_path / "absent", 300_000)) == []
