"""The embedded demo task: what is in the repository is what its generator writes, and it is sound."""

import json
import random
import re
import runpy
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

DATA = Path(__file__).parents[2] / "data"
COUNTS = {"labelled": 60, "unlabelled": 2400, "test": 500}


def rows(name: str) -> list[dict[str, str]]:
    lines = (DATA / "demo" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def bare(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def test_generator_writes_the_same_bytes(tmp_path: Path) -> None:
    start = time.monotonic()
    subprocess.run([sys.executable, str(DATA / "demo" / "make_demo.py"), str(tmp_path)], check=True)
    assert time.monotonic() - start < 5
    for name in COUNTS:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (DATA / "demo" / f"{name}.jsonl").read_bytes()


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_counts_fields_and_lengths(name: str, count: int) -> None:
    fields = {"text"} if name == "unlabelled" else {"text", "label"}
    assert len(rows(name)) == count
    assert all(set(row) == fields for row in rows(name))
    assert all(5 <= len(row["text"].split()) <= 35 for row in rows(name))


def test_no_text_comes_twice_in_or_across_files() -> None:
    texts = Counter(bare(row["text"]) for name in COUNTS for row in rows(name))
    assert [text for text, count in texts.items() if count > 1] == []


@pytest.mark.parametrize(("name", "per_class"), [("labelled", 12), ("test", 100)])
def test_every_class_of_the_task_is_there(name: str, per_class: int) -> None:
    labels = yaml.safe_load((DATA / "tasks" / "demo.yaml").read_text(encoding="utf-8"))["labels"]
    assert Counter(row["label"] for row in rows(name)) == dict.fromkeys(labels, per_class)


def test_labelled_rows_never_show_a_held_out_phrase() -> None:
    demo = runpy.run_path(str(DATA / "demo" / "make_demo.py"))
    rng = random.Random(0)
    for label, bank in demo["BANK"]["classes"].items():
        held_out = {*bank["plain"][2::3], *bank["implied"][2::3]}
        assert held_out.isdisjoint(demo["core_phrase"](label, False, rng) for _ in range(1000))
        assert held_out <= {demo["core_phrase"](label, True, rng) for _ in range(5000)}
