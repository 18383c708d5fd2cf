"""The one error of this floor, and how its sentences are worded: hints at what was meant, and values cut short."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def nearest(wrong: str, known: Sequence[str]) -> str:
    """The end of an error message: the likeliest meant name, or all of them."""
    close = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"use one of: {', '.join(known)}."


class InputError(ValueError):
    """Bad input, said in one clear sentence: which file, which row, what to do about it.

    The command line prints the sentence and exits with code 2.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the nearest known word, or an empty string if none is near."""
    folded = {name.casefold(): name for name in known}
    near = get_close_matches(word.casefold(), folded, n=1)
    return f" (did you mean {folded[near[0]]!r}?)" if near else ""


class NothingNew(InputError):
    """There is nothing to go on with: no mistake of anybody's, and a schedule may try again later."""


def shortened(text: str, most: int) -> str:
    """``text``, or its beginning and three dots where it is longer than ``most`` characters: ``most`` of them in all.

    Here, and not with the other wording of ``pipeline``, as nothing lies below: the sentences of a schema use it too.
    """
    return text if len(text) <= most else f"{text[: most - 3]}..."
