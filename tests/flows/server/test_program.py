"""What runs in a hosted server's process: which pages it serves, also when its services ask for the app again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from listflow.flows.server.hosting import Hosted

# In the place of Prefect's command: the app is made as that makes it, is asked, and is made again by a service.
ASKED = """\
import base64, json, sys
import prefect.cli

def app():
    from fastapi.testclient import TestClient
    from prefect.server.api import server
    from prefect.server.api.clients import OrchestrationClient
    from prefect.server.database.configurations import AioSqliteConfiguration
    made = server.create_app(final=True)
    client = TestClient(made, base_url="http://127.0.0.1")  # its services do not run
    page = client.get("/runs/flow-run/1", headers={"accept": "text/html"})
    token = {"Authorization": "Basic " + base64.b64encode(b"listflow:x").decode()}
    again = server.create_app()
    OrchestrationClient()
    print(json.dumps({
        "settings": client.get("/ui-settings").json(), "script": "prefect-password" in page.text,
        "reports": [client.get("/reports").status_code, client.get("/reports", headers=token).status_code],
        "health": client.get("/api/health").status_code, "same": again is made,
    }))

prefect.cli.app = app
"""


def answers(hosted: Hosted, tmp_path: Path) -> Any:
    own = hosted.environment() | {"PREFECT_UI_STATIC_DIRECTORY": str(tmp_path / "pages")}
    command = [sys.executable, "-P", "-c", f"{ASKED}\n{hosted.command()[3]}"]
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_pages_reports_and_no_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the second version ask a firm that counts visits; asked for, they are there."""
    monkeypatch.delenv("PREFECT_SERVER_UI_V2_ENABLED", raising=False)
    hosted = Hosted(tmp_path / "home", 4200, "listflow:x", tmp_path / "it's {runs}")
    found = answers(hosted, tmp_path)
    assert found["settings"]["available_uis"] == ["v1"]
    assert found["script"]
    assert found["reports"] == [401, 200]
    assert found["health"] == 200
    assert found["same"]
    monkeypatch.setenv("PREFECT_SERVER_UI_V2_ENABLED", "true")
    assert "first_pages_alone=False" in hosted.command()[3]


def test_a_transaction_of_sqlite_waits_where_it_begins(tmp_path: Path) -> None:
    """Two that read before they write: as Prefect begins them, the second one is refused whatever time it has."""
    script = """
import asyncio, sys
import sqlalchemy as sa
from prefect.server.database.configurations import AioSqliteConfiguration
from listflow.flows.server.program import write_at_once
write_at_once()

async def add(database, engine):
    session = await database.session(engine)
    async with session, database.begin_transaction(session):
        found = (await session.execute(sa.text("SELECT count(*) FROM t"))).scalar()
        await asyncio.sleep(0.2)
        await session.execute(sa.text(f"INSERT INTO t VALUES ({found})"))

async def main():
    database = AioSqliteConfiguration(f"sqlite+aiosqlite:///{sys.argv[1]}/x.db")
    engine = await database.engine()
    session = await database.session(engine)
    async with session, database.begin_transaction(session):
        await session.execute(sa.text("CREATE TABLE t (n)"))
    await asyncio.gather(*(add(database, engine) for _ in range(4)))
    session = await database.session(engine)
    async with session:
        print([row[0] for row in await session.execute(sa.text("SELECT n FROM t ORDER BY n"))])

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[0, 1, 2, 3]", done.stderr[-600:]
