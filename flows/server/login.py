"""Prefect's pages and their login form: whoever opens a link without a session comes to the form, and back to the link.

Prefect's own script asks for a session after it has asked for what the page shows, and the page of a run that cannot be
read is "Page not found". A few lines of script in front of it look first.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What Prefect's pages keep a password under. Without one the address is changed before they look at it; with one that
# is refused, the form is loaded, and what they made of the refusal meanwhile is gone.
SCRIPT = """<script>
(() => {
  const base = %(base)s, api = %(api)s, key = "prefect-password";
  const here = location.pathname.slice(base.length) + location.search + location.hash;
  const form = base + "/login?redirect=" + encodeURIComponent(here);
  if (location.pathname === base + "/login") return;
  const known = localStorage.getItem(key);
  if (known === null) { history.replaceState(null, "", form); return; }
  fetch(api + "/admin/version", {headers: {Authorization: "Basic " + known}}).then((answer) => {
    if (answer.status !== 401) return;
    localStorage.removeItem(key);
    location.replace(form);
  }).catch(() => {});
})();
</script>"""
HEAD = b"<head>"
# Packed, or "not modified since", a page cannot be given the script.
UNFIT = (b"accept-encoding", b"if-none-match", b"if-modified-since", b"range")
FORGOTTEN = ("etag", "last-modified", "accept-ranges")


class LoginFirst:
    """``app`` with the script in the head of its pages; whatever else it answers is passed on as it is."""

    def __init__(self, app: ASGIApp, api: str, base: str = "") -> None:
        self.app = app
        words = {"api": _quoted(api), "base": _quoted(base.rstrip("/"))}
        self.script = (SCRIPT % words).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _asks_for_a_page(scope):
            await self.app(scope, receive, send)
            return
        plain = [(name, value) for name, value in scope["headers"] if name not in UNFIT]
        await self.app({**scope, "headers": plain}, receive, _Rewriting(send, self.script))


class _Rewriting:
    """Sends on what it is sent, a page as a whole and with the script."""

    def __init__(self, send: Send, script: bytes) -> None:
        self._send, self._script = send, script
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_page(message):
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._finish(self._start)

    async def _finish(self, start: Message) -> None:
        body = self._body.replace(HEAD, HEAD + self._script, 1)
        headers = MutableHeaders(raw=list(start["headers"]))
        for name in FORGOTTEN:
            if name in headers:
                del headers[name]
        # A head alone (HEAD) keeps the length that the page would have had: it may say any or none.
        headers["content-length"] = str(len(body))
        headers["cache-control"] = "no-cache"
        await self._send({**start, "headers": headers.raw})
        await self._send({"type": "http.response.body", "body": body})


def _asks_for_a_page(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "GET" or scope["path"].startswith("/api/"):
        return False
    return "text/html" in Headers(scope=scope).get("accept", "")


def _is_page(message: Message) -> bool:
    return message["status"] == 200 and Headers(raw=message["headers"]).get("content-type", "").startswith("text/html")


def _quoted(word: str) -> Any:
    """As a string of a script; what would end the script is spelt out."""
    return json.dumps(word).replace("<", "\\u003c")
