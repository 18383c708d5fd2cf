"""What every part of the configuration is built on."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the configuration: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def nearest(wrong: str, known: Sequence[str]) -> str:
    """The end of an error message: the likeliest meant name, or all of them."""
    close = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"use one of: {', '.join(known)}."
