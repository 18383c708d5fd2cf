"""The script before Prefect's pages: what gets it, and what is left as it is."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from listflow.flows.server.login import LoginFirst

PAGE = "<!DOCTYPE html><html><head><title>x</title></head><body><head></body></html>"
BROWSER = {"accept": "text/html,*/*;q=0.8"}


def page(request: Request) -> Response:
    """One that a browser has already, or wants to have packed, is not the page with the script."""
    assert request.headers.get("accept-encoding") is None
    assert request.headers.get("if-none-match") is None
    return HTMLResponse(PAGE, headers={"etag": '"1"', "last-modified": "now"})


def data(request: Request) -> Response:
    return JSONResponse({"packed": request.headers.get("accept-encoding")}, headers={"etag": '"2"'})


@pytest.fixture
def client() -> TestClient:
    app = Starlette(routes=[Route("/runs/1", page), Route("/api/docs", data), Route("/x.js", data)])
    return TestClient(LoginFirst(app, "/api", "/"))


def test_a_page_gets_the_script_once_and_is_whole(client: TestClient) -> None:
    answer = client.get("/runs/1", headers=BROWSER | {"if-none-match": '"1"', "accept-encoding": "gzip"})
    assert answer.status_code == 200
    assert answer.text.count("prefect-password") == 1
    assert answer.text.index("<head><script>") < answer.text.index("<title>")
    assert answer.text.replace(answer.text[answer.text.index("<script>") : answer.text.index("<title>")], "") == PAGE
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert "etag" not in answer.headers
    assert 'base = "", api = "/api"' in answer.text


def test_what_is_no_page_is_left_as_it_is(client: TestClient) -> None:
    for path in ("/api/docs", "/x.js"):
        answer = client.get(path, headers=BROWSER | {"accept-encoding": "gzip"})
        assert answer.headers["etag"] == '"2"'
    assert client.get("/api/docs", headers={"accept-encoding": "gzip"}).json() == {"packed": "gzip"}
    assert client.get("/nowhere", headers=BROWSER).status_code == 404


def test_an_address_cannot_end_the_script() -> None:
    app = LoginFirst(Starlette(), "/api", "/</script><b>")
    assert app.script.count(b"</script>") == 1
