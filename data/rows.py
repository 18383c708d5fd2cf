"""Rows of texts and labels, one at a time, from whatever holds them: a file, a hub data set or a corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from listflow.data.errors import InputError, did_you_mean
from listflow.data.files import STDIN, digest_of, open_source, shown
from listflow.data.formats import HUB_ID, ending_of, is_hub_id, load_hub, records_of
from listflow.data.shards import is_corpus, read_manifest, shard_rows
from listflow.data.task import Columns
from listflow.data.values import known_label, label_of, text_of, unmarked


@dataclass(frozen=True)
class Row:
    """One row, texts stripped at both ends; `number` counts data rows from 1, `task` is read where asked for."""

    text: str
    pair: str | None
    label: str | None
    number: int
    task: str | None = None


def read_rows(
    source: str,
    columns: Columns,
    *,
    is_pair: bool,
    labels: Sequence[str] | None = None,
    want_label: bool = False,
    may_lack_label: bool = False,
    task_column: str | None = None,
    as_of: str | None = None,
    after: int = 0,
) -> Iterator[Row]:
    """Yield the rows of a file (csv, tsv, jsonl, json, parquet), a hub data set (`owner/name[:config:split]`), a corpus
    folder, or standard input (`-`).

    With `want_label` every row must have a text and a label, one of `labels` if these are given; without
    it labels are not read and blank texts are left to the caller. With `may_lack_label` a row without a label is no
    error: it has None. `task_column` is where rows name their task.
    `as_of`: what `digest` said of a corpus, which has the rows of then, however much it has grown since.
    `after`: of a corpus, a row number up to which rows are left out; shards that hold no other ones are not read.
    Raises InputError as soon as it meets a source, column or row that it cannot use.
    """
    if is_corpus(source):
        named = want_label or task_column is not None
        yield from _corpus_rows(source, is_pair=is_pair, named=named, as_of=as_of, after=after)
        return
    parts = ("text_a", "text_b") if is_pair else ("text",)
    names = [getattr(columns, part) for part in parts]
    keys = {name: f"columns {part}=" for name, part in zip(names, parts, strict=True)}
    keys |= {columns.label: "columns label="} if want_label else {}
    keys |= {task_column: "task-column "} if task_column else {}
    number = 0
    for number, record in enumerate(records_of(source, keys), 1):
        where = f"{shown(source)}, row {number}"
        text, *pair = (text_of(_column(where, name), record[name]) for name in names)
        label = label_of(_column(where, columns.label), record[columns.label]) if want_label else ""
        if label or (want_label and not may_lack_label):
            if not text or "" in pair:
                raise InputError(f"{where}: the text is blank; fill it in or delete the row.")
            label = _checked(where, columns.label, label, labels)
        task = text_of(_column(where, task_column), record[task_column]) if task_column else None
        yield Row(text, pair[0] if pair else None, label or None, number, task)
    if not number:
        raise InputError(f"{shown(source)}: is empty; it needs at least one row of data.")


@dataclass(frozen=True)
class Labelled:
    """The rows of a labelled file that have a label, and how many have none."""

    rows: tuple[Row, ...]
    without: int = 0


class LabelledFile:
    """The rows of a file that have a label, read anew each time they are gone over; ``without`` counts the others.

    InputError where none has a label, and as `read_rows`.
    """

    def __init__(self, source: str, columns: Columns, *, is_pair: bool, labels: Sequence[str] | None = None) -> None:
        self.source, self.columns, self.is_pair, self.labels = source, columns, is_pair, labels
        self.without = 0

    def __iter__(self) -> Iterator[Row]:
        self.without, there = 0, False
        for row in read_rows(
            self.source, self.columns, is_pair=self.is_pair, labels=self.labels, want_label=True, may_lack_label=True
        ):
            if row.label is None:
                self.without += 1
                continue
            there = True
            yield row
        if not there:
            raise InputError(f"{self.source}: no row has a label; fill in column {self.columns.label!r}.")

    def whole(self) -> Labelled:
        """Return all of its rows at once."""
        rows = tuple(self)
        return Labelled(rows, self.without)


@dataclass
class Counted:
    """What a source had: its rows, the number of the last one, and how many were left out and why."""

    rows: int = 0
    last: int = 0
    blank: int = 0
    excluded: int = 0

    @property
    def kept(self) -> int:
        """Those that were not left out."""
        return self.rows - self.blank - self.excluded


@dataclass(frozen=True)
class Unlabelled:
    """The unlabelled sources of a run, and which of their rows it reads.

    contents: their digests by name; one that is a growing corpus is read as it was then. labelled: those of the names
    that have labels too, and of which only the rows without one are taken. A row whose `text_key` is in `exclude` is
    left out.
    """

    sources: tuple[str, ...]
    columns: Columns
    is_pair: bool
    exclude: Set[str] = frozenset()
    contents: Mapping[str, str] = field(default_factory=dict)
    labelled: Set[str] = frozenset()

    @property
    def names(self) -> dict[str, str]:
        """Each source by its name."""
        return dict(zip(source_names(self.sources), self.sources, strict=True))

    def read(self, tally: dict[str, Counted]) -> Iterator[tuple[str, Row]]:
        """Yield the rows of all sources that are not left out, and count them in `tally`."""
        for name in self.names:
            for row in self.kept(name, tally.setdefault(name, Counted())):
                yield name, row

    def kept(self, name: str, counted: Counted, after: int = 0) -> Iterator[Row]:
        """Yield the rows of a source that are not left out; of a corpus those behind row `after`."""
        for row in self._rows(name, after):
            counted.rows, counted.last = counted.rows + 1, row.number
            if not row.text or row.pair == "":
                counted.blank += 1
            elif self.exclude and text_key(row.text, row.pair) in self.exclude:
                counted.excluded += 1
            else:
                yield row

    def _rows(self, name: str, after: int) -> Iterator[Row]:
        source, columns, is_pair = self.names[name], self.columns, self.is_pair
        if name not in self.labelled:
            return read_rows(source, columns, is_pair=is_pair, as_of=self.contents.get(name), after=after)
        rows = read_rows(source, columns, is_pair=is_pair, want_label=True, may_lack_label=True)
        return (row for row in rows if row.label is None)


def columns_that_fit(source: str, choices: Sequence[Columns], *, is_pair: bool) -> Columns:
    """Return the first of `choices` that the first row of a source can be read by; the first of all if none can."""
    for columns in choices if len(set(choices)) > 1 else ():
        try:
            next(read_rows(source, columns, is_pair=is_pair))
        except InputError:
            continue
        return columns
    return choices[0]


def digest(source: str | Path, before: str | None = None) -> str:
    """Return the sha256 of a file's bytes in hex, or a hub data set's own fingerprint. Raises InputError.

    That of a corpus is over its shards; it is `before` where that was its digest once, and it has only grown since.
    """
    if is_corpus(str(source)):
        manifest = read_manifest(Path(source))
        return before if before and manifest.as_of(before) else manifest.digest()
    if not is_hub_id(str(source)):
        with open_source(str(source)) as file:
            return digest_of(file)
    return f"hub:{load_hub(str(source))._fingerprint}"


def stem(source: str) -> str:
    """Return the short name of a source: the file name without its ending, the data set without its owner."""
    if source == STDIN:
        return "stdin"
    match = HUB_ID.fullmatch(source) if is_hub_id(source) else None
    if match:
        return match["name"].rpartition("/")[2]
    path = Path(source)
    return Path(path.stem).stem if path.suffix.lower() == ".gz" and ending_of(source) else path.stem


def source_names(sources: Sequence[str]) -> list[str]:
    """Return a name for each source: its stem, with -2, -3, ... where an earlier one has taken it."""
    names: list[str] = []
    for source in sources:
        base = stem(source)
        tries = (base if number == 1 else f"{base}-{number}" for number in count(1))
        names.append(next(name for name in tries if name not in names))
    return names


def text_key(text: str, pair: str | None) -> str:
    """Return 32 hex digits, equal for texts that differ in case and white space only."""
    folded = "\0".join(" ".join(part.casefold().split()) for part in (text, pair) if part is not None)
    return hashlib.blake2b(folded.encode(), digest_size=16).hexdigest()


def keys_digest(keys: Set[str]) -> str:
    """Return the sha256 of a set of keys."""
    return hashlib.sha256("".join(sorted(keys)).encode()).hexdigest()


def _corpus_rows(source: str, *, is_pair: bool, named: bool, as_of: str | None, after: int) -> Iterator[Row]:
    """The rows of a corpus, numbered over all of its shards, so that a row keeps its number as the corpus grows."""
    present = read_manifest(Path(source))
    manifest = present if as_of is None else present.as_of(as_of)
    if manifest is None:
        raise InputError(f"{source}: its first shards are others than before; restore the corpus from a backup.")
    if named:
        raise InputError(f"{source}: is a corpus, whose rows have no labels; pass a file with labels.")
    if manifest.is_pair != is_pair:
        kinds = ("one text", "two texts")
        raise InputError(f"{source}: has {kinds[manifest.is_pair]} a row where the task wants {kinds[is_pair]}.")
    for shard in manifest.shards:
        if shard.first + shard.rows - 1 > after:
            for row in shard_rows(Path(source), shard):
                if row["row"] > after:
                    yield Row(row["text"], row["pair"], None, row["row"])


def _column(where: str, name: str) -> str:
    return f"{where}: column {name!r}"


def _checked(where: str, name: str, label: str, labels: Sequence[str] | None) -> str:
    """The label as the task has it."""
    if not label:
        raise InputError(f"{where}: the label is missing; fill in column {name!r} or delete the row.")
    if labels is None:
        return label
    found = known_label(unmarked(label, labels), labels)
    if found is None:
        hint = did_you_mean(label, labels)
        raise InputError(f"{where}: unknown label {label!r}{hint}; the task has {', '.join(labels)}.")
    return found
