"""The stage that docs/stages.md adds, added to a copy of the project as it says there, passes what every stage must."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Whole runs that are killed, engines on the verbalizer, the identity at the start.
TESTS = ("whole/test_every_stage.py", "pipeline/stages/test_presets.py")
CHOSEN = "scaling-verbalizer or (scaling and (every_engine or identity or saved_tensors))"


def blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "stages.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def add_file(root: Path, block: str) -> None:
    header, _, content = block.partition("\n")
    path = root / header.removeprefix("# ")
    assert not path.exists()
    path.write_text(content, "utf-8")


def change_lines(root: Path, block: str) -> None:
    """Applies a block of ``--- FILE``, ``+import`` and pairs of ``-before``, ``+after``, where before is found once."""
    path, before = root, ""
    for line in block.splitlines():
        if line.startswith("--- "):
            path = root / line.removeprefix("--- ")
        elif line.startswith("-"):
            before = line[1:]
        else:
            text = path.read_text("utf-8")
            place = before or "\nfrom listflow.pipeline"
            assert text.count(before) == 1 or not before, line
            text = text.replace(place, line[1:] if before else f"\n{line[1:]}{place}", 1)
            path.write_text(text, "utf-8")
            before = ""


def test_the_stage_of_the_docs_works_when_it_is_added_as_the_docs_say(tmp_path: Path) -> None:
    for name in ("listflow", "pipeline", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("data", "flows"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (new,), (lines,) = blocks("python"), blocks("diff")
    add_file(tmp_path, new)
    change_lines(tmp_path, lines)
    tests = [f"tests/{name}" for name in TESTS]
    # What other tests have started as a command does would keep the copy, which is the current folder, off the path.
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests, "-k", CHOSEN],
        cwd=tmp_path, env=outside | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "8 passed" in done.stdout, done.stdout[-500:]
