"""The reports of finished runs as pages of the server: read only, behind its password, and nothing else of the disk.

/reports lists the finished runs directly below one folder, /reports/RUN is the report.html of one of them.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from listflow.pipeline.storage.run_folder import RunFolder, runs_below

PATH = "/reports"
# A report holds texts from anywhere: nothing in it may run, load or ask anything, or be framed by another page.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; sandbox"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache, private",
}
ASKED = {"WWW-Authenticate": 'Basic realm="listflow reports", charset="UTF-8"'}
REFUSED = "The server's password is asked for: the user is what stands before the colon in the file password, the password is what follows it."  # fmt: skip  # noqa: E501
PAGE = Environment(autoescape=True).from_string("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }}</title>
<style>
body { margin: 0 auto; max-width: 60rem; padding: 2.5rem 1.25rem; font: 1rem/1.55 system-ui, sans-serif; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .5rem .7rem; border-top: 1px solid #8884; text-align: left; overflow-wrap: anywhere; }
td + td, th + th { white-space: nowrap; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>{{ words }}</p>
{% if runs %}<table>
<tr><th>run</th><th>task</th><th>accuracy</th><th>page drawn</th></tr>
{% for run in runs %}<tr><td><a href="{{ run.link }}">{{ run.name }}</a></td><td>{{ run.task }}</td>
<td>{{ run.accuracy }}</td><td>{{ run.time }}</td></tr>
{% endfor %}</table>{% endif %}
</body>
</html>
""")


@dataclass(frozen=True)
class Listed:
    """A finished run as a line of the list."""

    name: str
    task: str
    accuracy: str
    time: str

    @property
    def link(self) -> str:
        """Where its report is."""
        return f"{PATH}/{quote(self.name, safe='')}"


class WithReports:
    """``app`` with the reports of the finished runs below ``folder`` at /reports, for those who know ``password``."""

    def __init__(self, app: ASGIApp, folder: Path, password: str) -> None:
        self.app = app
        self.reports = _Guarded(_pages(folder), password)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_ours = scope["type"] == "http" and f"{scope['path']}/".startswith(f"{PATH}/")
        await (self.reports if is_ours else self.app)(scope, receive, send)


class _Guarded:
    """``app`` for those who know ``password``, a user and a password with a colon between; others are asked for it."""

    def __init__(self, app: ASGIApp, password: str) -> None:
        self.app, self.password = app, password.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if hmac.compare_digest(_given(Request(scope)), self.password):
            await self.app(scope, receive, send)
        else:
            await _said("Not without the password", REFUSED, 401, ASKED)(scope, receive, send)


def finished(folder: Path) -> Iterator[Listed]:
    """The finished runs directly below ``folder``, the latest first; what is a link, or holds one, is left out."""
    pages = [run.path.name for run in runs_below(folder) if report_page(folder, run.path.name)]
    ended = {name: RunFolder(folder / name).report.stat().st_mtime for name in pages}
    for name in sorted(pages, key=lambda name: -ended[name]):
        time = datetime.fromtimestamp(ended[name]).strftime("%Y-%m-%d %H:%M")
        yield Listed(name, *_outcome(RunFolder(folder / name).report), time)


def report_page(folder: Path, name: str) -> Path | None:
    """The report.html of the finished run ``name`` directly below ``folder``; None where no such file lies there."""
    if not name or name in {".", ".."} or "/" in name or "\x00" in name:
        return None
    files = RunFolder(folder.resolve() / name)
    for path in (files.config, files.report, files.page):
        if path.resolve() != path or not path.is_file():
            return None
    return files.page


def _pages(folder: Path) -> Starlette:
    def index(request: Request) -> Response:
        runs = list(finished(folder))
        words = f"The finished runs in {folder}." if runs else f"No run in {folder} is finished yet."
        return HTMLResponse(PAGE.render(title="Reports", words=words, runs=runs), headers=HEADERS)

    def one(request: Request) -> Response:
        name = request.path_params["name"]
        with suppress(OSError):
            if path := report_page(folder, name):
                return HTMLResponse(_read(path), headers=HEADERS)
        begun = name in {run.path.name for run in runs_below(folder)}
        words = f"is not finished; `listflow resume {folder / name}` goes on with it" if begun else "is not there"
        return _said("No such report", f"A report of run {name} {words}.", 404)

    return Starlette(routes=[Route(PATH, index), Route(f"{PATH}/{{name}}", one)])


def _said(title: str, words: str, code: int, more: dict[str, str] | None = None) -> Response:
    """A page that says ``words``."""
    return HTMLResponse(PAGE.render(title=title, words=words, runs=()), code, HEADERS | (more or {}))


def _given(request: Request) -> bytes:
    """User and password of a request; nothing where it has none that can be read."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    try:
        return base64.b64decode(token, validate=True) if kind.lower() == "basic" else b""
    except (binascii.Error, ValueError):
        return b""


def _read(path: Path) -> bytes:
    """Its bytes; OSError where it has become a link since it was looked at."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        return file.read()


def _outcome(report: Path) -> tuple[str, str]:
    """Task and accuracy, as far as they can be read."""
    try:
        found: Any = json.loads(_read(report))
        final = found["final"] or {}
        accuracy = final.get("accuracy")
        return str(found["task"]), "not known" if accuracy is None else f"{100 * accuracy:.1f} %"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "", "cannot be read"
