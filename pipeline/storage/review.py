"""A review on disk: what a round asks, what was answered, and that nobody answered.

RUN/round-0r/review/contested.csv     for a person, who fills in its label column or writes another file
RUN/round-0r/review/asked.json        the same rows, for the program
RUN/round-0r/review/waiting.json      there while a run waits, with the time that it waits until
RUN/round-0r/review/corrections.json  written once, by whoever is first: the answers, or that the run went on without

The run's own lock is held by the run that waits, so a review has a lock of its own for that one moment of writing.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from listflow.data.errors import InputError, did_you_mean, shortened
from listflow.data.files import open_source
from listflow.data.formats import records_of
from listflow.data.values import unmarked
from listflow.pipeline.storage.checkpoint import FORMAT, LOCK, read_json, write_json
from listflow.pipeline.storage.run_folder import RunFolder

ASKED, CSV, WAITING, CORRECTIONS = "asked.json", "contested.csv", "waiting.json", "corrections.json"
ROW_ID, LABEL = "row_id", "label"


@dataclass(frozen=True)
class Contested:
    """A row to ask about: its place ``row`` in the corpus, its texts, the teacher's label, and ``why`` it is doubted.

    ``probability`` is that of ``label``; ``score`` is how contested the row is, from 0.
    """

    row_id: str
    row: int
    text: str
    pair: str | None
    label: str
    probability: float
    runner_up: str
    score: float
    why: str

    def shown(self, most: int) -> str:
        """Its texts on one line, ``most`` characters at most."""
        words = " ".join((self.text if self.pair is None else f"{self.text} / {self.pair}").split())
        return shortened(words, most)


@dataclass(frozen=True)
class Asked:
    """What a round asks: its rows, the most contested first, and the ``labels`` to choose from."""

    folder: Path
    round: int
    labels: tuple[str, ...]
    rows: tuple[Contested, ...]


@dataclass(frozen=True)
class Correction:
    """A label that a person gave to the corpus row ``row``."""

    row_id: str
    row: int
    label: str


@dataclass(frozen=True)
class Reviewed:
    """How a review ended: the corrections by corpus row, who gave them, and when (UTC).

    ``unanswered`` says why the run went on without any; empty where somebody answered.
    """

    round: int
    rows: tuple[Correction, ...]
    by: str
    at: str
    unanswered: str = ""


@dataclass(frozen=True)
class Answer:
    """A label for a row; ``where`` it was written, for messages."""

    row_id: str
    label: str
    where: str


def read_asked(run: Path, number: int) -> Asked | None:
    """What a round asks, or None while it has not asked."""
    folder = RunFolder(run).round(number).review
    if not (folder / ASKED).exists():
        return None
    stored = _read(folder / ASKED)
    rows = tuple(Contested(**row) for row in stored["rows"])
    return Asked(folder, number, tuple(stored["labels"]), rows)


def write_asked(asked: Asked) -> None:
    """Keeps what a round asks."""
    stored = {"format": FORMAT, "labels": asked.labels, "rows": [asdict(row) for row in asked.rows]}
    write_json(asked.folder / ASKED, stored)


def read_reviewed(run: Path, number: int) -> Reviewed | None:
    """How the review of a round ended, or None while it is open or was never opened."""
    path = RunFolder(run).round(number).review / CORRECTIONS
    if not path.exists():
        return None
    stored = _read(path)
    return Reviewed(
        number, tuple(Correction(**row) for row in stored["rows"]), stored["by"], stored["at"], stored["unanswered"]
    )


def conclude(asked: Asked, rows: Iterable[Correction], by: str = "", unanswered: str = "") -> Reviewed:
    """Ends a review, once: how it ended, which is what was written first where several came."""
    path = asked.folder / CORRECTIONS
    with FileLock(asked.folder / LOCK):
        if not path.exists():
            ordered = sorted(rows, key=lambda correction: correction.row)
            reviewed = Reviewed(asked.round, tuple(ordered), by, utc(), unanswered)
            write_json(path, {"format": FORMAT, **asdict(reviewed)})
    ended = read_reviewed(asked.folder.parents[1], asked.round)
    assert ended is not None
    return ended


def read_answers(source: str) -> Iterator[Answer]:
    """Yield the answers in the columns ``row_id`` and ``label`` of a csv, tsv, jsonl or parquet file.

    Rows with an empty label are no answers. Raises InputError for a file that cannot be read, or has no rows.
    """
    open_source(source).close()  # what is no file here is not looked for on a hub
    number = 0
    for number, record in enumerate(records_of(source, {ROW_ID: "", LABEL: ""}), 1):
        row_id, label = (_cell(record[name]) for name in (ROW_ID, LABEL))
        if label:
            yield Answer(row_id, label, f"{source}, row {number}")
    if not number:
        raise InputError(f"{source}: is empty; it needs at least one row of data.")


def parse_answers(text: str) -> Iterator[Answer]:
    """Yield the answers in lines of ``row_id,label``; a semicolon ends a line too, for forms of a single line.

    A line without a label is no answer. Raises InputError for a line of another shape.
    """
    for number, line in enumerate(text.replace(";", "\n").splitlines(), 1):
        cells = [cell.strip() for cell in next(csv.reader([line]), [])]
        if cells in ([], [""], [ROW_ID, LABEL]):
            continue
        if len(cells) != 2:
            raise InputError(f"line {number}, {line.strip()!r}, is not row_id,label; write one row a line.")
        if cells[1]:
            yield Answer(cells[0], cells[1], f"line {number}")


def check_answers(asked: Asked, answers: Iterable[Answer]) -> tuple[Correction, ...]:
    """The corrections that ``answers`` are; InputError for a row or label that is unknown, or two labels for a row."""
    rows = {row.row_id: row for row in asked.rows}
    found: dict[str, Correction] = {}
    for answer in answers:
        row_id, label = (unmarked(cell, known) for cell, known in ((answer.row_id, rows), (answer.label, asked.labels)))
        if row_id not in rows:
            raise InputError(
                f"{answer.where}: round {asked.round} does not ask about row {row_id!r}{did_you_mean(row_id, rows)}; "
                f"its rows are in {asked.folder / CSV}."
            )
        if label not in asked.labels:
            hint = did_you_mean(label, asked.labels)
            raise InputError(f"{answer.where}: unknown label {label!r}{hint}; the task has {', '.join(asked.labels)}.")
        before = found.setdefault(row_id, Correction(row_id, rows[row_id].row, label))
        if before.label != label:
            raise InputError(
                f"{answer.where}: row {row_id!r} is given as {before.label!r} and as {label!r}; choose one."
            )
    return tuple(found.values())


def answer_review(run: Path, answers: Iterable[Answer], by: str) -> Reviewed:
    """Takes ``answers`` to the open review of a run. InputError where there is none, or for a bad answer."""
    asked = open_review(run)
    rows = check_answers(asked, answers)
    if not rows:
        raise InputError("no row has a label; write a label for at least one, the teacher's where it is right.")
    ended = conclude(asked, rows, by)
    if ended.unanswered or set(ended.rows) != set(rows):
        raise InputError(_over(run, ended))
    return ended


def open_review(run: Path) -> Asked:
    """What the run in ``run`` asks now; InputError, saying why, where it asks nothing."""
    config = read_json(RunFolder(run).config)["config"]
    if not config.get("review", {}).get("rows"):
        raise InputError(f"{run} does not ask for a review; a run does that is started with --set review.rows=20.")
    for number in range(int(config["rounds"]["count"]), 0, -1):
        asked, ended = read_asked(run, number), read_reviewed(run, number)
        if ended is not None:
            raise InputError(_over(run, ended))
        if asked is not None:
            return asked
    raise InputError(f"{run} has not asked yet; it does when its pseudo labels are made.")


def waits_until(run: Path, number: int) -> str | None:
    """The time (UTC) until which a living run waits for the review of a round; None where it does not wait."""
    path = RunFolder(run).round(number).review / WAITING
    open_still = path.exists() and read_reviewed(run, number) is None
    return str(_read(path)["until"]) if open_still else None


def review_notices(run: Path, last: int) -> Iterator[str]:
    """What the reader of a report should know of the reviews of ``last`` rounds, a sentence each."""
    for number in range(1, last + 1):
        asked, ended = read_asked(run, number), read_reviewed(run, number)
        if asked is None:
            continue
        if ended is None or ended.unanswered:
            why = "the rounds ended" if ended is None else ended.unanswered
            yield f"Round {number} asked about {len(asked.rows)} contested rows, and {why}: it went on without."
            continue
        labels = {row.row_id: row.label for row in asked.rows}
        changed = sum(labels[row.row_id] != row.label for row in ended.rows)
        whose = f" by {ended.by}" if ended.by else ""
        use = f"labelled rows from round {number + 1} on" if number < last else "not used, as no round followed"
        yield (
            f"{len(ended.rows)} of {len(asked.rows)} contested rows of round {number} were labelled{whose}, {changed} "
            f"otherwise than by the teacher; they are {use}."
        )


def utc(minutes: float = 0) -> str:
    """The time ``minutes`` from now, to the second."""
    return datetime.fromtimestamp(datetime.now(UTC).timestamp() + 60 * minutes, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _cell(value: object) -> str:
    return "" if value is None else str(value).strip()


def _over(run: Path, ended: Reviewed) -> str:
    how = f"was answered{f' by {ended.by}' if ended.by else ''}"
    if ended.unanswered:
        how = f"is closed, as {ended.unanswered}"
    return f"the review of round {ended.round} of {run} {how} ({ended.at}); nothing is asked now."


def _read(path: Path) -> Any:
    stored = read_json(path)
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise InputError(f"{path} is damaged; restore it, or delete it and resume the run.")
    return stored
