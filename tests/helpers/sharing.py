"""How processes share the suite: files stay whole, and those of the temporary Prefect server are one share.

Each process that has one of the latter starts a server, and makes the run that they share.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadFileScheduling

ASKING = '"flow_fixtures"'


class Shares(LoadFileScheduling):
    """Shares are handed out as their tests are ordered: see ``in_order``."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "server" if asks_for_server(self.config.rootpath / file) else file


def in_order(file: Path) -> int:
    """Where the tests of a file come: first the long share, then long files, so that no process waits at the end."""
    return 0 if asks_for_server(file) else 1 if file.parent.name == "whole" else 2


@cache
def asks_for_server(file: Path) -> bool:
    return ASKING in file.read_text("utf-8")
