"""Text from anywhere within a Markdown document: read as it was written, never as a link, an image or a tag.

The pages that show artifacts and forms draw Markdown, as do those that show an exported model's README. HTML entities
would not do: Prefect's pages show some of them as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# What can begin something anywhere, what makes an address a link, and what makes a list or a rule of a line.
MEANS_SOMETHING = re.compile(r"[\\`*_\[\]<>&|~$@#]|:(?=/)|(?<=www)\.|(?<=\d)[.)](?=\s|$)|^[-+=]", re.IGNORECASE)


def plain(text: str) -> str:
    """``text`` on one line, such that its characters are shown and nothing else comes of them."""
    return MEANS_SOMETHING.sub(r"\\\g<0>", _line(text))


def code(text: str) -> str:
    """``text`` as code on one line; as ``plain`` where it holds what would end the code, or empty."""
    words = _line(text)
    return f"`{words}`" if words and not {"`", "\\"} & set(words) else plain(words)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table of cells in Markdown; columns whose name in ``header`` ends with a colon align right."""
    names = [name.removesuffix(":") for name in header]
    rules = ["---:" if name.endswith(":") else "---" for name in header]
    return [f"| {' | '.join(map(_cell, cells))} |" for cells in (names, rules, *rows)]


def _line(text: str) -> str:
    # No renderer shows the character 0.
    return " ".join(text.replace("\0", "\N{REPLACEMENT CHARACTER}").split())


def _cell(words: str) -> str:
    """A bar within a cell, also within code, unless ``plain`` has been there."""
    return re.sub(r"(?<!\\)\|", r"\\|", words)
