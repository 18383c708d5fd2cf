"""Imports run one way, flows -> pipeline -> data, and the method does not need Prefect."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {"data": {"data"}, "pipeline": {"pipeline", "data"}, "flows": {"flows", "pipeline", "data"}}
FLOORS = set(ALLOWED)


def imported(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, wherever in the file; our own by their floor."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.removeprefix("listflow.").split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.removeprefix("listflow.").split(".")[0])
    return names


@pytest.mark.parametrize("floor", sorted(FLOORS))
def test_imports_run_one_way(floor: str) -> None:
    for path in (ROOT / floor).rglob("*.py"):
        names = imported(path)
        assert names & FLOORS <= ALLOWED[floor], path
        assert floor == "flows" or "prefect" not in names, path
        assert floor != "flows" or "torch" not in names, path


def test_the_rounds_work_without_prefect() -> None:
    names = ("training.rounds", "results.outcome", "results.predictors", "results.export", "results.label_worker")
    modules = ", ".join(f"listflow.pipeline.{name}" for name in names)
    script = f"import sys; sys.modules['prefect'] = None; import {modules}"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
