"""The files of a tiny run, for every test.

What is heavy is imported where it is needed: the process that hands the tests to others loads this file too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import alone  # noqa: F401  (before what reads the environment)
import garbage
import pytest

# Helpers that assert: a failure in them shows its values too.
pytest.register_assert_rewrite("commands", "interruptions", "real_server", "reviews", "stage_models")


def pytest_collection_finish() -> None:
    garbage.look_seldom()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One process runs the tests as they are named; several begin with what is long."""
    if hasattr(config, "workerinput"):
        from sharing import in_order

        items.sort(key=lambda item: in_order(item.path))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    if config.getvalue("dist") != "loadfile":
        return None
    from sharing import Shares

    return Shares(config, log)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """A test that computes with more threads leaves none of them to the next one."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def _plain_reports() -> Iterator[None]:
    """Reports have no pictures where no test looks at them."""
    from pictures import without_pictures

    with without_pictures():
        yield


@pytest.fixture
def drawn() -> Iterator[None]:
    """Reports have their pictures, for tests that look at them, or at all files of a run."""
    from pictures import with_pictures

    with with_pictures():
        yield


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny backbone folder, a task file, and labelled, unlabelled and test files."""
    from tiny import sentences, tiny_backbone, write_jsonl

    folder = tmp_path_factory.mktemp("tiny")
    backbone = tiny_backbone()
    backbone.model.save_pretrained(folder / "backbone")
    backbone.tokenizer.save_pretrained(folder / "backbone")
    task = folder / "task.yaml"
    task.write_text('name: tiny\ntemplate: "{text} it was {mask} ."\nlabels: {negative: bad, positive: good}\n')
    return {
        "backbone": folder / "backbone",
        "task": task,
        "labelled": write_jsonl(folder / "labelled.jsonl", sentences(8, 1)),
        "unlabelled": write_jsonl(folder / "unlabelled.jsonl", sentences(60, 2, labelled=False)),
        "test": write_jsonl(folder / "test.jsonl", sentences(20, 3)),
    }
