"""In a real browser: a link without a session leads to the form and back, a report opens behind the same password."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_server import Client, real_server

pytest_plugins = ["flow_fixtures", "real_server"]
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not here"),
]
SECONDS = 20_000  # in thousandths, as the browser counts


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a client of one real server, whose reports are those of runs/ in the current folder."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        with real_server(home) as environment:
            yield environment | {"HOME_OF_SERVER": str(home)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    found = next((path for path in map(Path, ("/usr/bin/chromium", "/usr/bin/google-chrome")) if path.exists()), None)
    if found is None:
        pytest.skip("no browser is here")
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=found)
        yield one
        one.close()


@pytest.fixture
def address(client: Client) -> str:
    return client.env["PREFECT_API_URL"].removesuffix("/api")


def log_in(page: Any, words: str) -> None:
    page.fill("input[type=password]", words)
    page.keyboard.press("Enter")


def test_a_link_leads_to_the_form_and_back(client: Client, browser: Any, address: str, asked: list[str]) -> None:
    run_dir = Path(client.env["HOME_OF_SERVER"]) / "runs" / "tiny"
    done = client.listflow("run", *asked, f"--run-dir={run_dir}")
    assert done.returncode == 0, done.stderr
    (run,) = client.runs("listflow")
    link = f"{address}/runs/flow-run/{run['id']}"
    password = client.env["PREFECT_API_AUTH_STRING"]

    context = browser.new_context()
    page = context.new_page()
    page.goto(link)
    page.wait_for_selector("input[type=password]", timeout=SECONDS)
    log_in(page, "listflow:guess")
    page.get_by_text("Authentication failed").first.wait_for(timeout=SECONDS)
    log_in(page, password)
    page.wait_for_url(f"**/runs/flow-run/{run['id']}*", timeout=SECONDS)
    page.get_by_text(run["name"]).first.wait_for(timeout=SECONDS)
    # With a session, the link is the page at once; with one that is refused since, the form again.
    page.goto(link)
    page.get_by_text(run["name"]).first.wait_for(timeout=SECONDS)
    page.evaluate("localStorage.setItem('prefect-password', btoa('listflow:former'))")
    page.goto(link)
    page.wait_for_url("**/login?redirect=*", timeout=SECONDS)
    log_in(page, password)
    page.wait_for_url(f"**/runs/flow-run/{run['id']}*", timeout=SECONDS)
    context.close()


def test_a_report_opens_from_its_artifact(client: Client, browser: Any, address: str) -> None:
    (artifact,) = client.ask("artifacts/latest", artifacts={"key": {"any_": ["list-report"]}})
    user, _, secret = client.env["PREFECT_API_AUTH_STRING"].partition(":")
    context = browser.new_context(http_credentials={"username": user, "password": secret})
    page = context.new_page()
    complaints: list[str] = []
    page.goto(f"{address}/artifacts/artifact/{artifact['latest_id']}")
    log_in(page, f"{user}:{secret}")
    with context.expect_page() as opened:
        page.get_by_role("link", name="report", exact=True).click(timeout=SECONDS)
    report = opened.value
    report.on("console", lambda message: complaints.append(message.text))
    report.reload()
    assert report.url == f"{address}/reports/tiny"
    assert report.locator("h1").inner_text()
    assert report.locator("img").first.evaluate("image => image.complete && image.naturalWidth > 0")
    assert report.evaluate("getComputedStyle(document.querySelector('table')).borderCollapse") == "collapse"
    assert not complaints
    report.goto(f"{address}/reports")
    report.get_by_role("link", name="tiny").click(timeout=SECONDS)
    report.wait_for_url("**/reports/tiny", timeout=SECONDS)
    context.close()
    # Without the password: the browser's own form, and behind it a page that says what is asked for.
    stranger = browser.new_context()
    answer = stranger.request.get(f"{address}/reports/tiny")
    assert answer.status == 401
    assert "password is asked for" in answer.text()
    stranger.close()
