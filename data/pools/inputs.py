"""Everything a run is fed: labelled rows, test rows and the pool of unlabelled rows, checked together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from listflow.data.errors import InputError
from listflow.data.pool import ROWS_AT_ONCE, Before, BuiltPool, Pool
from listflow.data.pools.record import open_pool
from listflow.data.rows import (
    Labelled,
    LabelledFile,
    Row,
    Unlabelled,
    digest,
    read_rows,
    source_names,
    text_key,
)
from listflow.data.splits import draw
from listflow.data.task import Columns, Task

SHOWN = 5  # labels that a sentence names
LONE = "No unlabelled texts are given: the start is made of the labelled rows alone, and there are no rounds."
NO_CLASS = "-1"  # what some data sets write for a label that is not known


@dataclass(frozen=True)
class Inputs:
    """What a run is fed.

    `built` is what the rounds read of the rows of `unlabelled`: all, or a sample. `notices` are sentences for the
    reader of a report. `digests` maps `labelled`, `test` and `unlabelled/NAME` (one per source) to the sha256 of the
    file.
    """

    labelled: tuple[Row, ...]
    test: tuple[Row, ...]
    built: BuiltPool
    unlabelled: Unlabelled
    task: Task
    notices: tuple[str, ...]
    digests: dict[str, str]

    @property
    def pool(self) -> Pool:
        """The unlabelled rows that the rounds read."""
        return self.built.pool


def open_inputs(
    task: Task,
    labelled: str,
    unlabelled: Sequence[str],
    test: str | None,
    *,
    columns: Columns | None,
    shots: int | None,
    balanced: bool,
    seed: int,
    folder: Path,
    digests: dict[str, str] | None = None,
    known: Labelled | None = None,
    reviewed: Sequence[Row] = (),
    most: int | None = None,
    before: Before | None = None,
) -> Inputs:
    """Return the checked inputs of a run; the unlabelled rows go to `folder`, or are found there.

    columns: None takes the task's. shots: how many labelled rows to draw in total; None takes all of them.
    digests: what `source_digests` said of these sources, if it was asked before. known: what the labelled file holds,
    if it was read before. reviewed: labelled rows besides the file's, whose label counts where both have a text.
    most: how many unlabelled rows to take, of more a seeded sample. before: what the run had that it goes on from.
    Without unlabelled sources the texts of the labelled one are the pool. Raises InputError for whatever cannot be
    used; what can be used but should be known is a notice.
    """
    columns = columns or task.columns
    digests = digests or source_digests(labelled, unlabelled, test)
    check_apart(labelled, unlabelled, columns, digests, is_pair=task.is_pair)
    found = _labelled_rows(task, labelled, columns, shots, balanced, seed, known)
    rows = found.rows
    labels = list(task.labels)
    tests = read_rows(test, columns, is_pair=task.is_pair, labels=labels, want_label=True) if test else ()
    test_rows = tuple(tests)
    given = {text_key(row.text, row.pair) for row in rows}
    rows = (*rows, *(row for row in reviewed if text_key(row.text, row.pair) not in given))
    keys = {text_key(row.text, row.pair) for row in rows}
    asked = _unlabelled(labelled, unlabelled, columns, task.is_pair, keys, digests)
    built = open_pool(asked, folder, most if unlabelled else None, seed, before)
    notices = (
        *_absent_notices(task, rows, shots),
        *_label_notices(task),
        *_without_notices(labelled, found.without, digests),
        *_row_notices(rows, test_rows, keys),
        *_pool_notices(built),
        *_sampled_notices(built),
        *(_sameness_notices(built, len(task.labels)) if unlabelled else (LONE,)),
    )
    return Inputs(rows, test_rows, built, asked, task, notices, digests)


def source_digests(
    labelled: str, unlabelled: Sequence[str], test: str | None, before: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the sha256 of every source, keyed as in `Inputs.digests`.

    before: what this said when a run was first opened; a corpus that has only grown since counts as it was then.
    Raises InputError for a source that cannot be read.
    """
    digests = {"labelled": digest(labelled)}
    for name, source in zip(source_names(unlabelled), unlabelled, strict=True):
        role = f"unlabelled/{name}"
        digests[role] = digest(source, (before or {}).get(role))
    return digests | ({"test": digest(test)} if test else {})


def check_apart(
    labelled: str, unlabelled: Sequence[str], columns: Columns, digests: Mapping[str, str], *, is_pair: bool
) -> None:
    """InputError where the labelled file is an unlabelled one too, and all of its rows have a label."""
    for name, source in zip(source_names(unlabelled), unlabelled, strict=True):
        if digests[f"unlabelled/{name}"] == digests["labelled"]:
            rows = read_rows(labelled, columns, is_pair=is_pair, want_label=True, may_lack_label=True)
            if all(row.label is not None for row in rows):
                raise InputError(f"{source}: is the labelled file too; pass a file of unlabelled rows.")


def _labelled_rows(
    task: Task,
    source: str,
    columns: Columns,
    shots: int | None,
    balanced: bool,
    seed: int,
    known: Labelled | None,
) -> Labelled:
    """All rows, or a draw; for a draw the file is read twice, so that a large one need not fit in memory."""
    reader = LabelledFile(source, columns, is_pair=task.is_pair, labels=list(task.labels))
    every: Iterable[Row] = known.rows if known is not None else reader
    if shots is None:
        rows = tuple(every)
    else:
        chosen = set(draw([row.label or "" for row in every], shots, seed, balanced))
        rows = tuple(row for index, row in enumerate(every) if index in chosen)
    if len({row.label for row in rows}) < 2:
        raise InputError(
            f"{source}: the {len(rows)} labelled row(s) all have the label {rows[0].label!r}; "
            "add rows of another class, or draw more with --shots."
        )
    return Labelled(rows, known.without if known is not None else reader.without)


def _unlabelled(
    labelled: str, unlabelled: Sequence[str], columns: Columns, is_pair: bool, keys: Set[str], digests: dict[str, str]
) -> Unlabelled:
    """The unlabelled sources, or the labelled one where there are none, of which all rows are taken."""
    sources = tuple(unlabelled or (labelled,))
    contents = {name: digests.get(f"unlabelled/{name}", digests["labelled"]) for name in source_names(sources)}
    if not unlabelled:
        return Unlabelled(sources, columns, is_pair, contents=contents)
    alike = frozenset(name for name, content in contents.items() if content == digests["labelled"])
    return Unlabelled(sources, columns, is_pair, keys, contents, alike)


def _absent_notices(task: Task, rows: Sequence[Row], shots: int | None) -> Iterator[str]:
    """One sentence on the labels that no row has."""
    there = {row.label for row in rows}
    absent = [label for label in task.labels if label not in there]
    if not absent:
        return
    one = len(absent) == 1
    listed = ", ".join(repr(label) for label in absent[:SHOWN]) + (" ..." if len(absent) > SHOWN else "")
    which = f"the label {listed}" if one else f"one of {len(absent)} labels ({listed})"
    learned = "it can only be learned from its label word" if one else "they can only be learned from their label words"
    classes = len(task.labels)
    more = f"; {shots} rows are not enough for {classes} labels, draw at least {classes} with --shots"
    yield f"No labelled row has {which}: {learned}{more if shots and shots < classes else ''}."


def _label_notices(task: Task) -> Iterator[str]:
    """Labels that are likely one, or none at all."""
    alike: dict[str, list[str]] = defaultdict(list)
    for label in task.labels:
        alike[label.casefold()].append(label)
    for names in (names for names in alike.values() if len(names) > 1):
        listed = " and ".join(repr(name) for name in names)
        yield f"The labels {listed} differ in case only and are {len(names)} classes; write one way if they are one."
    if NO_CLASS in task.labels:
        yield f"The label {NO_CLASS!r} is a class like others; leave the cell empty where it means that there is none."


def _without_notices(source: str, without: int, digests: Mapping[str, str]) -> Iterator[str]:
    if without:
        is_pool = any(role != "labelled" and value == digests["labelled"] for role, value in digests.items())
        use = "unlabelled ones" if is_pool else "left out; pass the file to --unlabelled too, to learn from their texts"
        yield f"{without} row(s) of {source} have no label and are {use}."


def _row_notices(rows: Sequence[Row], tests: Sequence[Row], keys: Set[str]) -> Iterator[str]:
    labels_of: dict[str, set[str | None]] = defaultdict(set)
    for row in rows:
        labels_of[text_key(row.text, row.pair)].add(row.label)
    conflicts = sum(len(labels) > 1 for labels in labels_of.values())
    if conflicts:
        yield f"{conflicts} labelled text(s) occur with more than one label."
    shared = sum(text_key(row.text, row.pair) in keys for row in tests)
    if shared:
        yield f"{shared} test row(s) repeat a labelled text, so the test figures flatter."


def _pool_notices(built: BuiltPool) -> Iterator[str]:
    if built.excluded:
        yield f"{built.excluded} unlabelled row(s) repeat a labelled text and were left out."
    if built.skipped_blank:
        yield f"{built.skipped_blank} unlabelled row(s) have a blank text and were left out."


def _sampled_notices(built: BuiltPool) -> Iterator[str]:
    if built.is_sample:
        yield (
            f"The rounds read a seeded sample of {len(built.pool):,} of the {built.rows:,} unlabelled rows "
            "(data.pool); the final model labels all of them."
        )


def _sameness_notices(built: BuiltPool, classes: int) -> Iterator[str]:
    """A sentence where the rows are fewer than the classes, or copies of fewer texts. Reads no further than it must."""
    different: set[str] = set()
    for _, texts in built.pool.batches(ROWS_AT_ONCE):
        for text in texts:
            different.add(text_key(*text))
            if len(different) >= classes:
                return
    rows = f"{len(built.pool):,} {'sampled ' if built.is_sample else ''}unlabelled row(s)"
    yield (
        f"The {rows} hold {len(different)} text(s), fewer than the {classes} labels, "
        "so next to nothing can be learned from them; pass more text with --unlabelled."
    )
