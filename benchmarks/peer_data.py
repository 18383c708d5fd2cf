"""The rows that every peer gets: K labelled ones, a pool, and rows to be measured on, written down once a draw.

Draws 1 to 5 are measured on shuffled test rows. Draws from 11 upward are for choosing: they are scored on dev.jsonl, or
on train rows that no draw and no pool has, where a task has no dev file; test files are not read for them.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real import OUT, SHOTS

from listflow.data.rows import text_key
from listflow.data.splits import draw

TASKS = (
    "sst2", "subj", "mpqa", "mnli", "rte", "qqp", "agnews", "sms_spam", "trec", "tweet_emotion", "banking77",
)  # fmt: skip
POOL, TESTED, HELD_OUT, OF_EACH = 3000, 1000, 1000, 10
FOR_CHOOSING = 11  # the first draw that no goal is measured on
Line = dict[str, Any]


@dataclass(frozen=True)
class Draw:
    """The files of one draw, as a user would have them, and whether a row has two texts."""

    task: str
    number: int
    labelled: Path
    pool: Path
    test: Path
    is_pair: bool

    @property
    def name(self) -> str:
        return f"{self.task}-{self.number}"


def draw_of(data: Path, task: str, number: int, shots: int = SHOTS, pool: int | None = POOL) -> Draw:
    """The rows of draw ``number``: the published labelled ones up to 5 where there are some, else balanced ones.

    Of another number of ``shots`` they are balanced; ``pool`` None is all train rows.
    """
    usual = (shots, pool) == (SHOTS, POOL)
    folder = OUT / "peers" / "rows" / (f"{task}-{number}" if usual else f"{task}-{number}-{shots}-{pool or 'all'}")
    files = [folder / f"{role}.jsonl" for role in ("labelled", "pool", "test")]
    if not all(path.exists() for path in files):
        folder.mkdir(parents=True, exist_ok=True)
        for path, lines in zip(files, _rows(data, task, number, shots, pool), strict=True):
            path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    first = json.loads(files[0].read_text("utf-8").splitlines()[0])
    return Draw(task, number, *files, is_pair="text_a" in first)


def lines_of(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _rows(
    data: Path, task: str, number: int, shots: int, most: int | None
) -> tuple[list[Line], list[Line], list[Line]]:
    train = lines_of(data / task / "train.jsonl")
    held_out: list[Line] = []
    if number >= FOR_CHOOSING and not (data / task / "dev.jsonl").exists():
        train, held_out = _held_out(train)
    labelled = _labelled(data, task, number, train, shots)
    taken = {_key(line) for line in labelled}
    rest = _shuffled([line for line in train if _key(line) not in taken], number)[:most]
    pool = [{name: value for name, value in line.items() if name != "label"} for line in rest]
    return labelled, pool, _measured(data, task, number, held_out, taken)


def _labelled(data: Path, task: str, number: int, train: list[Line], shots: int) -> list[Line]:
    published = data / "list_splits" / task / f"{SHOTS}-{number}" / "train.jsonl"
    if shots == SHOTS and published.exists():
        return lines_of(published)
    labels = [line["label"] for line in train]
    shots = max(shots, len(set(labels)))  # one row a class where there are more classes than rows
    return [train[i] for i in draw(labels, shots, number, balanced=True)]


def _measured(data: Path, task: str, number: int, held_out: list[Line], taken: set[str]) -> list[Line]:
    if number < FOR_CHOOSING:
        found = _shuffled(lines_of(data / task / "test.jsonl"), number)[:TESTED]
    else:
        found = held_out or lines_of(data / task / "dev.jsonl")
    return [line for line in found if _key(line) not in taken]


def _held_out(train: list[Line]) -> tuple[list[Line], list[Line]]:
    """(rows that stay, rows to choose by), the same for every draw; 10 of each class where classes are many."""
    places, seen = _shuffled(list(range(len(train))), 0), Counter[str]()
    if len({line["label"] for line in train}) > SHOTS:
        chosen = []
        for i in places:
            if seen[train[i]["label"]] < OF_EACH:
                seen[train[i]["label"]] += 1
                chosen.append(i)
    else:
        chosen = places[:HELD_OUT]
    keys = {_key(train[i]) for i in chosen}
    return [line for line in train if _key(line) not in keys], [train[i] for i in sorted(chosen)]


def _key(line: Line) -> str:
    return text_key(line["text"], None) if "text" in line else text_key(line["text_a"], line["text_b"])


def _shuffled(items: list[Any], seed: int) -> list[Any]:
    return random.Random(seed).sample(items, len(items))
