"""The error that every refused input raises, and how its sentences are worded: the likeliest name, values cut short."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches


class InputError(ValueError):
    """Bad input, said in one clear sentence: which file, which row, what to do about it.

    The command line prints the sentence and exits with code 2.
    """


class NothingNew(InputError):
    """There is nothing to go on with: no mistake of anybody's, and a schedule may try again later."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the nearest known word in any case, or an empty string if none is near."""
    found = _nearest(word.casefold(), {name.casefold(): name for name in known})
    return f" (did you mean {found!r}?)" if found is not None else ""


def nearest(wrong: str, known: Sequence[str]) -> str:
    """Return the end of a sentence: the nearest known name in this very case, or all of them where none is near."""
    found = _nearest(wrong, {name: name for name in known})
    return f"did you mean '{found}'?" if found is not None else f"use one of: {', '.join(known)}."


def shortened(text: str, most: int) -> str:
    """Return `text`, or its beginning and three dots where it is longer than `most` characters: `most` of them in all.

    Here, and not with the other wording of pipeline/, as nothing lies below: the sentences of a schema use it too.
    """
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _nearest(word: str, known: Mapping[str, str]) -> str | None:
    """What ``known`` has under the key that ``word`` is most like; None where it is like none of them."""
    close = get_close_matches(word, known, n=1)
    return known[close[0]] if close else None
