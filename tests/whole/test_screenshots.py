"""Prefect's pages of a real run, in a real browser: what a person reads there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.long
SCRIPT = Path(__file__).parents[2] / "docs" / "screenshots.py"
LARGEST = 300_000


@pytest.fixture
def screenshots() -> ModuleType:
    """The script that takes the pictures; skipped where there is no browser to take them with."""
    pytest.importorskip("playwright", reason="the package playwright is not installed")
    spec = importlib.util.spec_from_file_location("screenshots", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["screenshots"] = module
    spec.loader.exec_module(module)
    if module.browser_path() is None:
        pytest.skip("there is no chromium on this machine")
    return module


def test_a_run_can_be_read_in_a_browser(screenshots: ModuleType, tmp_path: Path) -> None:
    text = screenshots.take_pictures(tmp_path)
    assert {path.stem for path in tmp_path.glob("*.png")} == set(text) == {
        "ui-run", "ui-artifacts", "ui-artifact", "report",
    }  # fmt: skip
    assert all(path.stat().st_size < LARGEST for path in tmp_path.glob("*.png"))
    assert "8 Task runs" in text["ui-run"]
    assert "Upgrade" not in text["ui-run"]
    assert all(key in text["ui-artifacts"] for key in ("list-rounds", "list-pseudo-labels", "list-calibration"))
    assert "promoted" in text["ui-artifact"]
    assert "after two rounds of self-training" in text["report"]
