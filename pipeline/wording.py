"""Figures as people read them."""

from __future__ import annotations


def capitalised(words: str) -> str:
    """``words`` with its first letter in upper case, and the others as they are."""
    return words[:1].upper() + words[1:]


def percent(share: float | None) -> str:
    """``66.1 %`` for 0.661, and a dash for None."""
    return "-" if share is None else f"{100 * share:.1f} %"


def decimals(value: float | None, places: int = 2) -> str:
    """``value`` with ``places`` decimals, and a dash for None."""
    return "-" if value is None else f"{value:.{places}f}"


def duration(seconds: float) -> str:
    """``48 s``, ``3 min 05 s`` or ``2 h 14 min``."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
