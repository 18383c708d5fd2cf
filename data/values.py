"""What a cell of a file says, or an item that Python code passes: a text, a label, or nothing. One gate for both.

Texts keep their characters as they are. Labels and the names of columns are written in one way (Unicode's NFC), so that
a name that looks the same is the same.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from listflow.data.errors import InputError

Text = tuple[str, str | None]
EXACT = 2.0**53  # whole numbers below are exact as floats
TRUTH = frozenset({"true", "false"})
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet may compute
NUMBER = re.compile(r"[+-]?[0-9]+([.][0-9]+)?")
_WHOLE = re.compile(r"(-?[0-9]+)\.0+")
_NOTHING = frozenset({"NAType", "NaTType"})  # of pandas, which need not be installed


def text_of(what: str, value: Any) -> str:
    """Return the text that `value` is, without blank ends; an empty one where it is missing (None, NaN).

    Numbers are written as Python does. `what` begins the sentence of the InputError for anything else.
    """
    return _written(what, _plain(value), str).strip()


def label_of(what: str, value: Any) -> str:
    """Return the label that `value` is; an empty one where it is missing. As `text_of`, but written in one way.

    A whole number is whole in any format (1.0 is 1), and true is true.
    """
    return normal(_written(what, _plain(value), _label).strip())


def normal(name: str) -> str:
    """Return a label or the name of a column in the one way that Unicode has for it."""
    return unicodedata.normalize("NFC", name)


def known_label(label: str, labels: Sequence[str]) -> str | None:
    """Return the one of `labels` that is meant by `label`: itself, or the same value as another format writes it.

    True, TRUE and true are one, and 1.0 is 1, where `labels` has one of them only. None where none is meant.
    """
    if label in labels:
        return label
    found = [other for other in labels if _value(other) == _value(label)]
    return found[0] if len(found) == 1 else None


def harmless(cell: str) -> str:
    """``cell`` of a csv or tsv file, marked as text by an apostrophe where a spreadsheet would read a formula."""
    return f"'{cell}" if cell.startswith(FORMULA) and not NUMBER.fullmatch(cell) else cell


def unmarked(cell: str, known: Container[str]) -> str:
    """``cell`` without the mark of ``harmless``, where it is one of the ``known`` only so."""
    return cell.removeprefix("'") if cell not in known and cell.removeprefix("'") in known else cell


def texts_of(texts: Any, *, is_pair: bool, name: str = "texts") -> list[Text]:
    """Return (text, second text or None) for each item of a list of texts, or of pairs of texts for a pair task.

    Raises InputError for what is no list, and for the first item that cannot be read, with its index in `name`.
    """
    return [_item(f"{name}[{index}]", item, is_pair) for index, item in enumerate(listed(texts))]


def listed(items: Any, one: str = "text") -> list[Any]:
    """Return the items of what should be a list of texts; InputError where it is one text, a table or no list.

    `one` is what the sentences call an item.
    """
    read = f"is given where a list of {one}s is read"
    if isinstance(items, str | bytes) or getattr(items, "ndim", 1) == 0:
        raise InputError(f"one {one} {read}; put it in a list: [{one}].")
    kind = type(items).__name__
    if isinstance(items, Mapping) or hasattr(items, "columns"):
        raise InputError(f"a {kind} {read}; pass one column, as a list of its {one}s.")
    if not isinstance(items, Iterable):
        raise InputError(f"a {kind} {read}; pass a list: [{one}].")
    return list(items.to_pylist() if hasattr(items, "to_pylist") else items)


def _item(what: str, item: Any, is_pair: bool) -> Text:
    parts = _parts(item)
    if parts is None:
        if is_pair:
            raise InputError(f"{what} is one text where the task reads two; pass (text, second text).")
        return _present(what, item), None
    if len(parts) != 2:
        raise InputError(f"{what} holds {len(parts)} items; pass {'(text, second text)' if is_pair else 'a text'}.")
    text, pair = parts
    if is_pair:
        return _present(f"{what}[0]", text), _present(f"{what}[1]", pair)
    if text_of(f"{what}[1]", pair):
        raise InputError(f"{what} has a second text where the task reads one; leave it out.")
    return _present(f"{what}[0]", text), None


def _parts(item: Any) -> list[Any] | None:
    """The items of a tuple, a list or a row of an array; None for what is no such thing."""
    if isinstance(item, tuple | list):
        return list(item)
    return list(item) if getattr(item, "ndim", 0) == 1 else None


def _present(what: str, value: Any) -> str:
    """The text as it is, its blank ends too: nothing says that they are those of a cell."""
    plain = _plain(value)
    if plain is None:
        raise InputError(f"{what} is missing; pass a text, or '' for none.")
    return _written(what, plain, str)


def _plain(value: Any) -> Any:
    """``value`` as Python has it, and None where it is missing."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()  # numpy's numbers
    if type(value).__name__ in _NOTHING or (isinstance(value, float) and math.isnan(value)):
        return None
    return value


def _written(what: str, value: Any, write: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        raise InputError(f"{what} holds a {type(value).__name__}; it must hold text.")
    text = str(write(value))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{what} holds half a character; write it as UTF-8.") from error
    return text


def _label(value: str | int | float) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return str(int(value))
    return str(value)


def _value(label: str) -> str:
    """What all ways to write a label have in common."""
    folded = label.casefold()
    if folded in TRUTH:
        return folded
    whole = _WHOLE.fullmatch(label)
    return whole[1] if whole else normal(label)
