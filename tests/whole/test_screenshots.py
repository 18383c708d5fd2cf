"""Prefect's pages of a real run, in a real browser: what a person reads there, and that nothing foreign acts there."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import httpx
import pytest
import yaml
from commands import COMMAND
from tiny import sentences, tiny_overlay, write_jsonl

pytestmark = pytest.mark.long
SCRIPT = Path(__file__).parents[2] / "docs" / "screenshots.py"
LARGEST = 120_000
# Texts, labels and the name of a task that would be links, images and scripts.
AWAY = "http://198.51.100.7"  # an address that nobody has
TEXT = (
    f'![pixel]({AWAY}/a.png) <img src="{AWAY}/b.png"> <script>fetch("{AWAY}/c")</script> [here](javascript:alert(1)) '
    f"{AWAY}/d | `code` **bold**"
)
LABELS = {f"negative <img src='{AWAY}/e.png'>": "bad", f"![positive]({AWAY}/f.png)": "good"}
NAME = f"[up](javascript:alert(2)) <img src='{AWAY}/g.png'>"


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
    assert {path.stem for path in tmp_path.glob("*.png")} == set(text) == set(screenshots.KEPT)
    assert all(path.stat().st_size < LARGEST for path in tmp_path.glob("*.png"))
    assert "12 Task runs" in text["ui-run"]  # two teachers and what they weigh; four a round; the end
    assert "Upgrade" not in text["ui-run"]
    assert text["ui-run"].count("Finished in state Completed()") == 1  # that of the flow run
    for words in ("start: believed are prompt view", "round 2: prompt student", "promoted, kappa", "report.html"):
        assert words in text["ui-run"]
    assert all(key in text["ui-artifacts"] for key in ("list-rounds", "list-pseudo-labels", "list-calibration"))
    assert "promoted" in text["ui-rounds"]
    assert "Believed: prompt view" in text["ui-rounds"]
    assert "weight\tlabel\trow id\ttext" in text["ui-weighed-rows"]
    assert "after two rounds of self-training" in text["report"]


def hostile_run(files: dict[str, Path], folder: Path, api: str) -> Path:
    """The folder of a run on the server at ``api``, which asks for a review besides."""
    names = dict(zip(("negative", "positive"), LABELS, strict=True))
    labelled = [row | {"label": names[row["label"]], "text": f"{row['text']} {TEXT}"} for row in sentences(8, 1)]
    pool = [row | {"text": f"{row['text']} {TEXT}"} for row in sentences(40, 2, labelled=False)]
    task = folder / "task.yaml"
    task.write_text(json.dumps({"name": NAME, "template": "{text} it was {mask} .", "labels": LABELS}), "utf-8")
    given = {
        "labelled": write_jsonl(folder / "few.jsonl", labelled),
        "unlabelled": write_jsonl(folder / "p.jsonl", pool),
    }
    overlay = tiny_overlay(files | given | {"task": task, "test": given["labelled"]}, folder / "run")
    overlay["rounds"] = {"count": 2, "sample": 20}
    (folder / "own.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(overlay))), "utf-8")
    own = os.environ | {"PREFECT_API_URL": api, "PREFECT_HOME": str(folder / "home")}
    subprocess.run([*COMMAND, "run", "--config", "own.yaml"], cwd=folder, env=own, check=True, capture_output=True)
    return folder / "run"


def test_nothing_foreign_is_a_link_or_asks_another_machine(
    screenshots: ModuleType, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    with screenshots._server(tmp_path / "server") as api:
        run = hostile_run(tiny_files, tmp_path, api)
        ui = api.removesuffix("/api")
        found = httpx.post(f"{api}/artifacts/latest/filter", json={}).json()
        pages = {each["key"]: f"{ui}/artifacts/artifact/{each['latest_id']}" for each in found}
        assert {"list-weighed-rows", "list-report", "list-pseudo-labels", "list-rounds"} <= pages.keys()
        pages |= {"run": f"{ui}/runs/flow-run/{screenshots._flow_run(api)}", "report": (run / "report.html").as_uri()}
        text = {name: looked_at(screenshots, name, url, tmp_path) for name, url in pages.items()}
    assert "![pixel](" in text["list-weighed-rows"]
    assert "<img src='" in text["list-pseudo-labels"]
    assert "[up](javascript:alert(2))" in text["list-report"]


def looked_at(screenshots: ModuleType, name: str, url: str, folder: Path) -> str:
    """The words on a page, where it asked nobody else and nothing on it leads to a foreign address."""
    with screenshots.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=screenshots.browser_path())
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url, wait_until="networkidle")
        page.wait_for_timeout(1500)
        page.screenshot(path=folder / f"{name}.png")
        leads = page.eval_on_selector_all("a, img, script", "all => all.map(one => one.href || one.src || '')")
        words = str(page.inner_text("body"))
    assert [one for one in asked if not one.startswith(screenshots.HERE)] == [], name
    assert [one for one in leads if "198.51.100.7" in one or one.startswith("javascript:")] == [], name
    return words
