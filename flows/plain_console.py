"""Where commands print: names, paths and texts of users appear as they are."""

from __future__ import annotations

from rich.console import Console


def plain_console(stderr: bool = False) -> Console:
    """A console to which ``[b]`` and ``:100:`` are characters like others, in lines and in tables."""
    return Console(stderr=stderr, markup=False, emoji=False)
