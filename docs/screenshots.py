"""Pictures of a real run in Prefect's pages, and of its report: ``python docs/screenshots.py [FOLDER]``.

Starts a server of its own on this machine, runs two rounds of the demo on it, and looks at it with a headless
Chromium. Needs the package playwright and a chromium or chrome on the path; loads nothing from anywhere.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from listflow.flows.server.hosting import PAGES

SIZE = (1440, 900)
COLOURS = 128
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HERE = ("http://127.0.0.1:", "file:", "data:", "blob:http://127.0.0.1:")
PATIENCE = 180.0


@dataclass(frozen=True)
class Picture:
    """A page, and the words that must stand on it before it is taken."""

    name: str
    url: str
    words: tuple[str, ...]


def browser_path() -> str | None:
    """The Chromium of this machine, if it has one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def take_pictures(folder: Path) -> dict[str, str]:
    """Writes the pictures into ``folder``; the text that stood on each page, by the picture's name.

    RuntimeError where a page asked another machine for anything.
    """
    with tempfile.TemporaryDirectory() as home, _server(Path(home)) as api:
        run = _small_run(Path(home), api)
        pictures = _pictures(api.removesuffix("/api"), _flow_run(api), _rounds_table(api), run)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_path())
            return {picture.name: _take(browser, picture, folder) for picture in pictures}


def _pictures(ui: str, flow_run: str, table: str, run: Path) -> tuple[Picture, ...]:
    return (
        Picture("ui-run", f"{ui}/runs/flow-run/{flow_run}", ("train prompt student, round 2", "publish", "Completed")),
        Picture("ui-artifacts", f"{ui}/artifacts", ("list-rounds", "list-report", "list-meta-weights")),
        Picture("ui-artifact", f"{ui}/artifacts/artifact/{table}", ("confidence", "promoted", "on its teacher")),
        Picture("report", (run / "report.html").as_uri(), ("accuracy",)),
    )


def _take(browser: Browser, picture: Picture, folder: Path) -> str:
    page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(picture.url, wait_until="networkidle")
    for words in picture.words:
        page.get_by_text(words).first.wait_for()
    page.wait_for_timeout(1500)  # what is drawn with an animation
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


def _rounds_table(api: str) -> str:
    """The id of the last table of rounds."""
    answer = httpx.post(f"{api}/artifacts/latest/filter", json={"artifacts": {"key": {"any_": ["list-rounds"]}}})
    answer.raise_for_status()
    return str(answer.json()[0]["latest_id"])


def _wait_for(url: str) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(httpx.TransportError):
            if httpx.get(url).status_code == 200:
                return
        time.sleep(0.5)
    raise TimeoutError(f"no server answered at {url}")


if __name__ == "__main__":
    take_pictures(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
