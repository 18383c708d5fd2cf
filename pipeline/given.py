"""What Python code gives to a fit, lists of texts and labels, as the files of a run: the same rows, the same run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from listflow.data.errors import InputError
from listflow.data.files import missing, take_back
from listflow.data.values import Text, label_of, listed, texts_of
from listflow.pipeline.storage.run_folder import RunFolder

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
        names = [_label(index, value) for index, value in enumerate(listed(labels))]
        if len(rows) != len(names):
            raise InputError(f"{len(rows)} texts and {len(names)} labels are given; pass one label for each text.")
        if not rows:
            raise InputError("no labelled text is given; pass a few texts of each class, and their labels.")
        for index, (text, _) in enumerate(rows):
            if not text.strip():
                raise InputError(f"texts[{index}] is blank; leave it out, and its label.")
        return Given(rows, names, [] if unlabelled is None else texts_of(unframed(unlabelled), is_pair=is_pair))

    @contextmanager
    def kept_in(self, folder: Path) -> Iterator[dict[str, Any]]:
        """The ``data`` of a configuration: the rows as files of the run in ``folder``, gone where it is refused."""
        home = RunFolder(folder).given
        absent = missing(folder) or missing(home)
        before = set(home.glob("*"))
        home.mkdir(parents=True, exist_ok=True)
        try:
            yield self._written(home)
        except InputError:
            for path in set(home.glob("*")) - before:
                path.unlink()
            take_back(absent)
            raise

    def _written(self, home: Path) -> dict[str, Any]:
        labelled = [_row(text) | {"label": label} for text, label in zip(self.texts, self.labels, strict=True)]
        found: dict[str, Any] = {"labelled": _put(home, "labelled", labelled)}
        if self.unlabelled:
            found["unlabelled"] = [_put(home, "unlabelled", list(map(_row, self.unlabelled)))]
        return found


def rows_of(texts: Any) -> list[Text]:
    """Texts, or pairs of them, as the first item has it; InputError for what is neither."""
    items = listed(unframed(texts))
    first = items[0] if items else ""
    is_pair = isinstance(first, tuple | list) or getattr(first, "ndim", 0) == 1
    return texts_of(items, is_pair=is_pair)


def unframed(texts: Any) -> Any:
    """The items of a table or an array of one column, or of two, which are the two texts of a pair; else as it is."""
    shape: tuple[int, ...] = getattr(texts, "shape", ())
    if len(shape) != 2:
        return texts
    if shape[1] not in {1, 2}:
        raise InputError(f"a table of {shape[1]} columns is given; pass one column of texts, or the two of pairs.")
    values = texts.to_numpy() if hasattr(texts, "to_numpy") else texts
    return list(values[:, 0]) if shape[1] == 1 else list(map(tuple, values))


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
