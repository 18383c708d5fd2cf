"""README's first example runs as it stands, and gives what it says."""

from __future__ import annotations

import re
from ast import literal_eval
from pathlib import Path
from typing import Any

import pytest

from listflow.pipeline.run.presets import build_config

README = Path(__file__).parents[2] / "README.md"
FEW = {"steps": 2, "batch": 4, "tail_epochs": 1}
SHORT = {"teacher": {"epochs": 1}, "student": FEW, "second": {"student": FEW}, "rounds": {"count": 1}}


def first_example() -> str:
    found = re.search(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


def run_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The example's names after it ran in an empty ``folder``, which it leaves empty."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(first_example(), names)
    assert not list(folder.iterdir())
    return names


def test_the_first_example_is_the_estimator_in_ten_lines() -> None:
    assert "TextClassifier" in first_example()
    assert len(first_example().splitlines()) <= 10


def test_the_first_example_runs_with_few_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "listflow.pipeline.estimator.build_config", lambda preset, overlay: build_config(preset, SHORT, overlay)
    )
    names = run_here(tmp_path, monkeypatch)
    assert names["model"].classes_.tolist() == ["billing", "delivery"]
    assert len(names["model"].report_.rounds) == 1


@pytest.mark.long
def test_the_first_example_gives_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_here(tmp_path, monkeypatch)
    said = re.search(r"^model\.predict\((.*)\)  # array\((.*)\)$", first_example(), re.MULTILINE)
    assert said
    assert names["model"].predict(literal_eval(said[1])).tolist() == literal_eval(said[2])
    assert names["model"].report_._repr_html_().startswith("<iframe srcdoc=")
