"""Three finished runs of prompt tuning and the subspace of their prompts, for all tests of intrinsic prompt tuning.

A plugin that test modules of several folders name.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from prompt_runs import SMALL, other_task, prompt_run

from listflow.pipeline.pretraining.subspace import make_subspace


@pytest.fixture(scope="session")
def runs(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two draws of one task, and one run of another."""
    folder = tmp_path_factory.mktemp("prompts")
    second = prompt_run(other_task(tiny_files, folder), folder / "other")
    return [prompt_run(tiny_files, folder / "a", 1), prompt_run(tiny_files, folder / "b", 2), second]


@pytest.fixture(scope="session")
def space(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("space") / "subspace"
    make_subspace(runs, out, SMALL)
    return out
