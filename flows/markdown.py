"""Markdown of texts that come from anywhere: a page shows them, and neither loads nor runs what they hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def code(text: str) -> str:
    """``text`` as code on one line."""
    words = " ".join(text.split()).replace("`", "'")
    return f"`{words}`" if words else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table; every column but the first is aligned right where ``header`` ends it with a colon."""
    escaped = "\\|"
    names = [name.removesuffix(":") for name in header]
    rules = ["---:" if name.endswith(":") else "---" for name in header]
    return [f"| {' | '.join(cell.replace('|', escaped) for cell in cells)} |" for cells in (names, rules, *rows)]
