"""The files of a tiny run, for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import alone  # noqa: F401  (before what reads the environment)
import garbage
import pytest
import torch
from pictures import with_pictures, without_pictures
from tiny import sentences, tiny_backbone, write_jsonl

# Helpers that assert: a failure in them shows its values too.
pytest.register_assert_rewrite("commands", "interruptions", "real_server", "reviews", "stage_models")


def pytest_collection_finish() -> None:
    garbage.look_seldom()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """A test that computes with more threads leaves none of them to the next one."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def _plain_reports() -> Iterator[None]:
    """Reports have no pictures where no test looks at them."""
    with without_pictures():
        yield


@pytest.fixture
def drawn() -> Iterator[None]:
    """Reports have their pictures, for tests that look at them, or at all files of a run."""
    with with_pictures():
        yield


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny backbone folder, a task file, and labelled, unlabelled and test files."""
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
