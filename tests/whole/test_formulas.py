"""The table of docs/method.md that says where each formula is: its files are there, and define what it names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEADING = "## Where is the formula"


def rows() -> list[tuple[str, str]]:
    """(what, where) of every row of the table."""
    _, _, after = (ROOT / "docs" / "method.md").read_text("utf-8").partition(f"{HEADING}\n")
    lines = [line for line in after.partition("\n## ")[0].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return [(row[0], row[-1]) for row in cells]


def defined(path: Path) -> set[str]:
    """Names that a file defines: classes, functions and assignments, and ``Class.method``."""

    def of(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from of(node.body, f"{prefix}{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))

    return set(of(ast.parse(path.read_text("utf-8")).body, ""))


def problems(where: str) -> Iterator[str]:
    """What is wrong with a cell such as "`a/b.py`: `name`, `Class.method`; `c.py`: `other`"."""
    path: Path | None = None
    for quoted in re.findall(r"`([^`]+)`", where):
        if quoted.endswith(".py"):
            path = ROOT / quoted
            if not path.is_file():
                yield f"{quoted} is not there"
        elif path is None:
            yield f"{quoted} stands before any file"
        elif path.is_file() and quoted not in defined(path):
            yield f"{path.relative_to(ROOT)} does not define {quoted}"
    if path is None:
        yield "no file is named"


def test_the_table_is_there() -> None:
    assert len(rows()) >= 20


@pytest.mark.parametrize(("what", "where"), rows())
def test_a_formula_is_where_the_table_says(what: str, where: str) -> None:
    assert not list(problems(where)), what


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("`pipeline/method/reweigh.py`: `fused`", "pipeline/method/reweigh.py is not there"),
        ("`pipeline/method/gate.py`: `gate`, `Gate`", "pipeline/method/gate.py does not define Gate"),
        ("`pipeline/backbone/batch.py`: `Batch.cuts`", "pipeline/backbone/batch.py does not define Batch.cuts"),
        ("`gate` in `pipeline/method/gate.py`", "gate stands before any file"),
        ("in the code", "no file is named"),
    ],
)
def test_a_wrong_row_is_found(where: str, problem: str) -> None:
    assert list(problems(where)) == [problem]
