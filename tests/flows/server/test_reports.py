"""The pages of finished runs: for those who know the password, and nothing else of the disk."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from listflow.flows.server.reports import WithReports, report_page

PASSWORD = "listflow:né:x"


def a_run(folder: Path, page: str = "<p>of it</p>", accuracy: float | None = 0.875) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "report.json").write_text(json.dumps({"task": "<b>tickets</b>", "final": {"accuracy": accuracy}}))
    (folder / "report.html").write_text(page)
    return folder


def basic(words: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(words.encode()).decode()}"}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def client(runs: Path) -> TestClient:
    return TestClient(WithReports(Starlette(), runs, PASSWORD), headers=basic(PASSWORD))


def test_finished_runs_are_listed_and_shown(client: TestClient, runs: Path) -> None:
    a_run(runs / "one & <two>")
    a_run(runs / "unknown", accuracy=None)
    (a_run(runs / "damaged") / "report.json").write_text("[]")
    (a_run(runs / "begun") / "report.json").unlink()
    listed = client.get("/reports")
    assert listed.status_code == 200
    assert '<a href="/reports/one%20%26%20%3Ctwo%3E">one &amp; &lt;two&gt;</a>' in listed.text
    assert "&lt;b&gt;tickets" in listed.text
    assert "87.5" in listed.text
    assert "not known" in listed.text
    assert "begun" not in listed.text
    shown = client.get("/reports/one%20%26%20%3Ctwo%3E")
    assert shown.text == "<p>of it</p>"
    for answer in (listed, shown):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert policy.endswith("sandbox")
        assert answer.headers["x-content-type-options"] == "nosniff"
    unfinished = client.get("/reports/begun")
    assert unfinished.status_code == 404
    assert f"is not finished; `listflow resume {runs / 'begun'}` goes on with it" in unfinished.text


def test_no_folder_and_no_run(client: TestClient, runs: Path) -> None:
    assert "No run in" in client.get("/reports").text
    answer = client.get("/reports/%3Cb%3E")
    assert answer.status_code == 404
    assert "A report of run &lt;b&gt; is not there." in answer.text


@pytest.mark.parametrize("given", ["", "listflow:x", "listflow", ":", "listflow:né:x ", "other:né:x"])
def test_nobody_without_the_password(runs: Path, given: str) -> None:
    a_run(runs / "one")
    client = TestClient(WithReports(Starlette(), runs, PASSWORD), headers=basic(given) if given else {})
    for path in ("/reports", "/reports/one", "/reports/nothing", "/reports/"):
        answer = client.get(path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic ")
        assert "password is asked for" in answer.text
        assert "of it" not in answer.text


@pytest.mark.parametrize("header", ["Basic", "Basic !", "Basic é", "Bearer abc", f"Digest {PASSWORD}"])
def test_what_is_no_password_at_all(runs: Path, header: str) -> None:
    client = TestClient(WithReports(Starlette(), runs, PASSWORD))
    assert client.get("/reports", headers={"Authorization": header.encode()}).status_code == 401  # type: ignore[dict-item]


def test_nothing_else_of_the_disk(client: TestClient, runs: Path, tmp_path: Path) -> None:
    """Neither by a name that is a path nor by links, of which a run of someone else's may hold some."""
    run, secret = a_run(runs / "one"), a_run(tmp_path / "elsewhere", "secret")
    (runs / "linked").symlink_to(secret)
    linked = a_run(runs / "page")
    (linked / "report.html").unlink()
    (linked / "report.html").symlink_to(secret / "report.html")
    (runs / "report.html").write_text("secret")
    os.mkfifo(runs / "pipe")
    (runs / "folder" / "report.html").mkdir(parents=True)
    names = ["..", ".", "../elsewhere", "linked", "page", "pipe", "folder", "one/report.json", "one/..", str(run), "\0"]
    names += ["%2e%2e", "%2e%2e%2felsewhere", "..%2felsewhere", "one%00", "one%2f"]
    for name in names:
        assert report_page(runs, name) is None
        if "\0" not in name:
            assert "secret" not in client.get(f"/reports/{name}").text
    assert ">one</a>" in (listed := client.get("/reports").text)
    assert "linked" not in listed
    assert ">page<" not in listed


def test_a_folder_that_is_a_link_is_the_one_that_it_names(runs: Path, tmp_path: Path) -> None:
    a_run(runs / "one")
    (tmp_path / "other").symlink_to(runs)
    assert report_page(tmp_path / "other", "one") == runs / "one" / "report.html"


def test_nothing_can_be_written(client: TestClient, runs: Path) -> None:
    a_run(runs / "one")
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.request(method, "/reports/one").status_code == 405
