"""Pictures of a real run in Prefect's pages, and of its report: ``python docs/screenshots.py [FOLDER] [--every]``.

Starts a server of its own on this machine, runs two rounds of the demo on it, and looks at it with a headless
Chromium. ``--every`` takes each page that a run leaves, whole, at both widths. Needs the package playwright and a
chromium or chrome on the path; loads nothing from anywhere.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from listflow.flows.server.hosting import PAGES

WIDTHS, HEIGHT = (1440, 1024), 900
TALLEST = 6000
COLOURS = 128
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HERE = ("http://127.0.0.1:", "file:", "data:", "blob:http://127.0.0.1:")
PATIENCE = 180.0
# What stands in docs/, and what must be on a page of one kind before it is taken.
KEPT = ("ui-run", "ui-artifacts", "ui-rounds", "ui-weighed-rows", "report")
WORDS = {"list-rounds": ("on its teacher", "promoted"), "list-weighed-rows": ("row id", "weight")}


@dataclass(frozen=True)
class Picture:
    """A page, and the words that must stand on it before it is taken; ``whole`` takes what is below the window too."""

    name: str
    url: str
    words: tuple[str, ...]
    width: int = WIDTHS[0]
    whole: bool = False


def browser_path() -> str | None:
    """The Chromium of this machine, if it has one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def take_pictures(folder: Path, every: bool = False) -> dict[str, str]:
    """Writes the pictures into ``folder``; the text that stood on each page, by the picture's name.

    RuntimeError where a page asked another machine for anything.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, _server(Path(home)) as api:
        run = _small_run(Path(home), api)
        pages = _pages(api, run)
        taken = _every(pages) if every else [pages[name] for name in KEPT]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_path())
            return {picture.name: _take(browser, picture, folder) for picture in taken}


def _pages(api: str, run: Path) -> dict[str, Picture]:
    """Every page that a run leaves, by its name."""
    ui, flow_run = api.removesuffix("/api"), _flow_run(api)
    found = [
        Picture("ui-run", f"{ui}/runs/flow-run/{flow_run}", ("round 2: prompt student", "Report: "), whole=True),
        Picture("ui-runs", f"{ui}/runs", ("demo",)),
        Picture("ui-artifacts", f"{ui}/artifacts", ("list-rounds", "list-report", "list-meta-weights")),
        Picture("report", (run / "report.html").as_uri(), ("accuracy",)),
    ]
    found += [
        Picture(key.replace("list-", "ui-"), f"{ui}/artifacts/artifact/{latest}", WORDS.get(key, ()))
        for key, latest in _artifacts(api).items()
    ]
    return {picture.name: picture for picture in found}


def _every(pages: Mapping[str, Picture]) -> list[Picture]:
    """Each of ``pages`` whole, at both widths."""
    return [
        replace(picture, name=f"{picture.name}-{width}", width=width, whole=True)
        for picture in pages.values()
        for width in WIDTHS
    ]


def _take(browser: Browser, picture: Picture, folder: Path) -> str:
    page = browser.new_page(viewport={"width": picture.width, "height": HEIGHT})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(picture.url, wait_until="networkidle")
    for words in picture.words:
        page.get_by_text(words).first.wait_for()
    page.wait_for_timeout(1500)  # what is drawn with an animation
    if picture.whole:
        # The pages scroll within themselves, so that the window has to hold them.
        tall = page.evaluate("Math.max(...[...document.querySelectorAll('*')].map(one => one.scrollHeight))")
        page.set_viewport_size({"width": picture.width, "height": min(max(tall, HEIGHT), TALLEST)})
        page.wait_for_timeout(1000)
    path = folder / f"{picture.name}.png"
    page.screenshot(path=path, animations="disabled")
    text = page.inner_text("body")
    page.close()
    strangers = [url for url in asked if not url.startswith(HERE)]
    if strangers:
        raise RuntimeError(f"{picture.url} asked another machine: {strangers[0]}")
    Image.open(path).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    return text


@contextmanager
def _server(home: Path) -> Iterator[str]:
    """The address of the interface of a server for this machine only, without a password."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "--no-prompt", "server", "start", "--port", str(port)]
    own = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"} | PAGES
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, env=_clean() | own, stdout=quiet, stderr=quiet) as process:
        try:
            _wait_for(f"http://127.0.0.1:{port}/api/health")
            yield f"http://127.0.0.1:{port}/api"
        finally:
            process.terminate()


def _small_run(home: Path, api: str) -> Path:
    """The folder of two rounds of the demo."""
    command = [sys.executable, "-c", "from listflow.flows.cli.main import main; main()", "run", "--rounds=2"]
    subprocess.run(command, cwd=home, env=_clean() | {"PREFECT_API_URL": api, "PREFECT_HOME": str(home)}, check=True)
    return next((home / "runs").iterdir())


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


def _flow_run(api: str) -> str:
    """The id of the one flow run."""
    answer = httpx.post(f"{api}/flow_runs/filter", json={"limit": 1})
    answer.raise_for_status()
    return str(answer.json()[0]["id"])


def _artifacts(api: str) -> dict[str, str]:
    """The id of the last artifact under each key."""
    answer = httpx.post(f"{api}/artifacts/latest/filter", json={})
    answer.raise_for_status()
    return {each["key"]: str(each["latest_id"]) for each in answer.json()}


def _wait_for(url: str) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(httpx.TransportError):
            if httpx.get(url).status_code == 200:
                return
        time.sleep(0.5)
    raise TimeoutError(f"no server answered at {url}")


if __name__ == "__main__":
    given = [one for one in sys.argv[1:] if one != "--every"]
    take_pictures(Path(given[0]) if given else Path(__file__).parent, "--every" in sys.argv)
