"""What listflow says to inputs that others fail on: a table of input, command, exit code and sentence.

    python benchmarks/bad_inputs.py [--only WORDS ...]

Every case is a few small files, made here, in an empty folder, and one command. `plan` opens all that a run reads and
trains nothing. Told are the refusal, or what of the plan or its notes is about the case. For docs/reliability.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

Files = dict[str, bytes]
LISTFLOW = (sys.executable, "-P", "-c", "from listflow.flows.cli.main import main; main()")
FOOD = ("the soup was cold", "a fine dinner", "too much salt in the bread", "the cook was kind")
ROADS = ("the train was late", "a flat tyre again", "the bus took the long way", "no seat on the plane")
ROWS = [*((text, "food") for text in FOOD), *((text, "travel") for text in ROADS)]
POOL = [*(f"{text}, and cheap" for text in FOOD), *(f"{text}, of all days" for text in ROADS)]


def csv_of(rows: list[tuple[str, str]], head: str = "text,label", separator: str = ",") -> bytes:
    lines = [head, *(separator.join(f'"{cell}"' for cell in row) for row in rows)]
    return ("\n".join(lines) + "\n").encode()


def jsonl_of(rows: list[tuple[str, object]]) -> bytes:
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows).encode()


def texts_of(texts: list[str]) -> bytes:
    return ("text\n" + "".join(f'"{text}"\n' for text in texts)).encode()


TASK = 'template: "{text} {mask}"\nlabels:\n'
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n" for before, after in zip("abcdefg", "bcdefgh", strict=True)
)


@dataclass(frozen=True)
class Case:
    """``files`` beside ``pool.csv``, and a command; ``about`` finds what is told where nothing is refused."""

    name: str
    files: Files
    command: tuple[str, ...] = ()
    about: str = ""
    before: Callable[[Path], None] = field(default=lambda folder: None)

    def arguments(self) -> tuple[str, ...]:
        """The whole command; of a plan, the labelled file is the first one."""
        if self.command and self.command[0] != "plan":
            return self.command
        labelled = next(name for name in self.files if not name.endswith((".yaml", ".toml")))
        return ("plan", "--labelled", labelled, "--unlabelled", "pool.csv", *self.command[1:])


def task(labels: str) -> Files:
    return {"train.csv": csv_of(ROWS), "task.yaml": (TASK + labels).encode()}


TRUE_TWICE = {
    "train.jsonl": jsonl_of([(text, label == "food") for text, label in ROWS]),
    "test.csv": csv_of([(text, str(label == "food").lower()) for text, label in ROWS]),
}
SPELLINGS = ("caf\u00e9", "cafe\u0301")
TWO_SPELLINGS = {"train.csv": csv_of([*((text, SPELLINGS[i % 2]) for i, text in enumerate(FOOD)), *ROWS[4:]])}
WITH_COMMA = {
    "train.csv": csv_of(ROWS, '"text, as written",label'),
    "pool.csv": texts_of(POOL).replace(b"text\n", b'"text, as written"\n'),
}
GOOD_BOOK, BAD_BOOK = "\u8fd9\u672c\u4e66\u5f88\u597d", "\u8fd9\u672c\u4e66\u5f88\u5dee\u52b2"
TWICE = {"train.csv": csv_of(ROWS), "own.yaml": b"student:\n  steps: 9\nstudent:\n  batch: 4\n"}
WITH_TASK = ("plan", "--task", "task.yaml")
TEXT_TWICE = b'{"text": "a", "label": "food", "text": "b"}\n'
CASES = (
    Case("label NaN in jsonl", {"train.jsonl": jsonl_of([*ROWS, ("one more", float("nan"))])}, about="no label"),
    Case("text NaN in jsonl", {"train.jsonl": jsonl_of([*ROWS, (float("nan"), "food")])}),  # type: ignore[list-item]
    Case("true in jsonl, true in csv", TRUE_TWICE, ("plan", "--test", "test.csv"), "rows "),
    Case("one label in two Unicode spellings", TWO_SPELLINGS, about="rows "),
    Case("labels that differ in case only", {"train.csv": csv_of([*ROWS[:7], (ROWS[7][0], "Travel")])}, about="case"),
    Case("a label -1", {"train.csv": csv_of([(t, "-1" if label == "food" else "1") for t, label in ROWS])}, about="-1"),
    Case("semicolons", {"train.csv": csv_of(ROWS, "text;label", ";")}, about="rows "),
    Case("a first line sep=|", {"train.csv": b"sep=|\n" + csv_of(ROWS, "text|label", "|")}, about="rows "),
    Case("cp1252", {"train.csv": csv_of([*ROWS, ("a caf\u00e9 \u2013 of sorts", "food")]).decode().encode("cp1252")}),
    Case("a column twice in a row of JSON", {"train.jsonl": jsonl_of(ROWS) + TEXT_TWICE}),
    Case("lines that end with CR alone", {"train.csv": csv_of(ROWS).replace(b"\r\n", b"\n").replace(b"\n", b"\r")}),
    Case("utf-32", {"train.csv": csv_of(ROWS).decode().encode("utf-32")}),
    Case(".ndjson", {"train.ndjson": jsonl_of(ROWS)}, about="rows "),
    Case(".csv.gz", {"train.csv.gz": gzip.compress(csv_of(ROWS))}, about="rows "),
    Case("a fifo", {"train.csv": b""}, before=lambda folder: _fifo(folder / "train.csv")),
    Case("- for a run", {"-": b""}),
    Case("a column name with a comma", WITH_COMMA, ("plan", "--columns", 'text="text, as written"'), "rows "),
    Case("010 as a label of a task", task("  010: food\n  011: travel\n"), WITH_TASK),
    Case("12:30 as a label word", task("  food: 12:30\n  travel: road\n"), WITH_TASK),
    Case("a key that is there twice", task("  food: food\n  travel: road\n  food: meal\n"), WITH_TASK),
    Case("aliases of aliases", {"train.csv": csv_of(ROWS), "task.yaml": BOMB.encode()}, WITH_TASK),
    Case("20,000 nested lists", {"train.csv": csv_of(ROWS), "task.yaml": b"labels: " + b"[" * 20_000}, WITH_TASK),
    Case("--set student.steps=0100", {"train.csv": csv_of(ROWS)}, ("plan", "--set", "student.steps=0100")),
    Case("a task called ../../up", task("  food: food\n  travel: road\nname: ../../up\n"), WITH_TASK, "kept in"),
    Case("emoji alone", {"train.csv": csv_of([("\U0001f600 \U0001f389", "glad"), ("\U0001f622 \U0001f494", "sad")])}),
    Case("Chinese on minilm", {"train.csv": csv_of([(GOOD_BOOK, "good"), (BAD_BOOK, "bad")])}, about="does not know"),
    Case("one class", {"train.csv": csv_of(ROWS[:4])}),
    Case("a pool of one text", {"train.csv": csv_of(ROWS), "pool.csv": texts_of(["again"] * 9)}, about="fewer than"),
    Case("a section that is there twice", TWICE, ("plan", "--config", "own.yaml")),
    Case("predict without a run", {"new.csv": texts_of(POOL)}, ("predict", "no", "--input=new.csv", "--output=o.csv")),
)  # fmt: skip


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def told(case: Case) -> tuple[int, str]:
    """(exit code, the sentence) of a case."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in ({"pool.csv": texts_of(POOL)} | case.files).items():
            (folder / file).write_bytes(content)
        case.before(folder)
        own = os.environ | {"HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [*LISTFLOW, *case.arguments()],
            cwd=folder,
            env=own,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    if done.returncode:
        return done.returncode, done.stderr.strip().removeprefix("listflow: ")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    return 0, next((line for line in lines if re.search(case.about, line)), "(nothing is said)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="words of the names of cases")
    given = parser.parse_args()
    print("| input | exit code | sentence |\n|---|---|---|")
    for case in CASES:
        if not given.only or any(word in case.name for word in given.only):
            code, sentence = told(case)
            shown = sentence.replace("|", "\\|").replace("\n", " ")
            print(f"| {case.name} | {code} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
