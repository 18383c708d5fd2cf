"""What Python code gives to a fit, lists of texts and labels, as the files of a run: the same rows, the same run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np

from listflow.data.errors import InputError
from listflow.data.files import missing, storing, take_back
from listflow.data.values import Text, label_of, listed, texts_of
from listflow.pipeline.storage.run_folder import RunFolder

_OPTION = re.compile(r"\B--([a-z]+(?:-[a-z]+)*)")
UNLABELLED = "-1"  # how scikit-learn's own semi-supervised estimators mark a row without a label


@dataclass(frozen=True)
class Given:
    """Labelled texts or pairs, the name of each one's label, and texts without one."""

    texts: list[Text]
    labels: list[str]
    unlabelled: list[Text]

    @staticmethod
    def of(texts: Any, labels: Any, unlabelled: Any = None) -> Given:
        """The rows of what ``fit`` was given; InputError, with the index of the item, for what cannot be used."""
        rows = rows_of(texts)
        is_pair = bool(rows) and rows[0][1] is not None
        names = [_label(index, value) for index, value in enumerate(labels_of(labels))]
        if len(rows) != len(names):
            raise InputError(f"{len(rows)} texts and {len(names)} labels are given; pass one label for each text.")
        if not rows:
            raise InputError("no labelled text is given; pass a few texts of each class, and their labels.")
        for index, (text, _) in enumerate(rows):
            if not text.strip():
                raise InputError(f"texts[{index}] is blank; leave it out, and its label.")
        if [second for _, second in rows] == names:
            raise InputError("the second column of texts is the labels; pass the column of texts alone.")
        pool = [] if unlabelled is None else items_of(unlabelled, "unlabelled")
        return Given(rows, names, texts_of(pool, is_pair=is_pair, name="unlabelled"))

    @contextmanager
    def kept_in(self, folder: Path) -> Iterator[dict[str, Any]]:
        """The ``data`` of a configuration: the rows as files of the run in ``folder``, gone where it is refused.

        A sentence that refuses them does not name the files, which nobody knows.
        """
        home = RunFolder(folder).given
        absent = missing(folder) or missing(home)
        before = set(home.glob("*"))
        with storing(folder):
            home.mkdir(parents=True, exist_ok=True)
            data = self._written(home)
        try:
            yield data
        except InputError as error:
            for path in set(home.glob("*")) - before:
                path.unlink()
            take_back(absent)
            raise InputError(in_python(_without_files(str(error), data))) from error

    def _written(self, home: Path) -> dict[str, Any]:
        labelled = [_row(text) | {"label": label} for text, label in zip(self.texts, self.labels, strict=True)]
        found: dict[str, Any] = {"labelled": _put(home, "labelled", labelled)}
        if self.unlabelled:
            found["unlabelled"] = [_put(home, "unlabelled", list(map(_row, self.unlabelled)))]
        return found


def rows_of(texts: Any) -> list[Text]:
    """Texts, or pairs of them, as the first item has it; InputError for what is neither."""
    items = items_of(texts)
    return texts_of(items, is_pair=bool(items) and len(_parts(items[0])) != 1)


def items_of(texts: Any, name: str = "texts") -> list[Any]:
    """The items of a list, a column or an array; of a table of one column, or of two, which are the texts of pairs.

    InputError for another table, for what has no order, and for an item that is a number.
    """
    columns = _width(texts)
    if columns > 2:
        raise InputError(f"a table of {columns} columns is given; pass one column of texts, or the two of pairs.")
    if isinstance(texts, set | frozenset):
        raise InputError(f"{name} is a set, which has no order; pass a list.")
    items = listed(_untabled(texts))
    for index, item in enumerate(items):
        for part in _parts(item):
            # Not a NaN, which is a missing text.
            if isinstance(part, Number | np.bool_) and part == part:
                raise InputError(f"{name}[{index}] is a number, {part}; pass texts.")
    return items


def labels_of(labels: Any) -> list[Any]:
    """The labels of a list, a column, an array or a table of one column, as they are; InputError for anything else."""
    columns = _width(labels)
    if columns > 1:
        raise InputError(f"a table of {columns} columns is given as labels; pass one column, a label for each text.")
    if isinstance(labels, set | frozenset):
        raise InputError("labels is a set, which has no order; pass a list, a label for each text.")
    return listed(_untabled(labels), "label")


def _width(items: Any) -> int:
    """The columns of a table or an array; 1 for what has none."""
    shape: tuple[int, ...] = getattr(items, "shape", ())
    return shape[1] if len(shape) == 2 else 1


def _untabled(items: Any) -> Any:
    """The items of the one column, or the tuples of the two, of a table or an array; else as it is."""
    if len(getattr(items, "shape", ())) != 2 or not (hasattr(items, "to_numpy") or isinstance(items, np.ndarray)):
        return items
    values = np.asarray(items.to_numpy() if hasattr(items, "to_numpy") else items)
    return list(values[:, 0]) if values.shape[1] == 1 else list(map(tuple, values))


def _parts(item: Any) -> Sequence[Any]:
    is_several = isinstance(item, tuple | list) or getattr(item, "ndim", 0) == 1
    return list(item) if is_several else (item,)


def in_python(sentence: str) -> str:
    """``sentence`` with the names that a setting of the command line has in Python."""
    return _OPTION.sub(lambda found: found[1].replace("-", "_"), sentence)


def _without_files(sentence: str, data: dict[str, Any]) -> str:
    for role, paths in data.items():
        for path in [paths] if isinstance(paths, str) else paths:
            sentence = sentence.replace(path, f"the {role} texts")
    return sentence


def _label(index: int, value: Any) -> str:
    name = label_of(f"labels[{index}]", value)
    if not name:
        raise InputError(f"labels[{index}] is missing; pass texts without a label as unlabelled.")
    if name == UNLABELLED and not isinstance(value, str):
        raise InputError(
            f"labels[{index}] is -1, which may mean a text without a label: pass such texts as unlabelled, or the "
            "class by a name of its own ('-1')."
        )
    return name


def _row(text: Text) -> dict[str, str]:
    first, second = text
    return {"text": first} if second is None else {"text_a": first, "text_b": second}


def _put(home: Path, role: str, rows: Sequence[dict[str, str]]) -> str:
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path = home / f"{role}-{hashlib.sha256(content).hexdigest()[:16]}.jsonl"
    if not path.exists():
        path.write_bytes(content)
    return str(path)
