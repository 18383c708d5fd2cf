"""A server of one's own: its password, its database, its port, and one server at a time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import prefect
import pytest
from commands import Cli, refused

from listflow.data.errors import InputError
from listflow.flows.server.hosting import HOST, Hosted, prepared_server

pytest_plugins = ["flow_fixtures"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def test_a_password_is_made_once_and_for_nobody_else(tmp_path: Path) -> None:
    home, first, second = tmp_path / "home", free_port(), free_port()
    with prepared_server(home, first) as one:
        pass
    with prepared_server(home, second) as two:
        pass
    assert one.password == two.password
    assert len(one.password) > 30
    assert {path.name: path.stat().st_mode & 0o777 for path in home.iterdir()} == {
        "password": 0o600, "client.env": 0o600, ".lock": 0o600,
    }  # fmt: skip
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "client.env").read_text().splitlines() == [
        f"export PREFECT_API_URL=http://127.0.0.1:{second}/api",
        f"export PREFECT_API_AUTH_STRING={one.password}",
    ]
    with prepared_server(tmp_path / "other", first) as other:
        assert other.password != one.password
    os.chmod(home / "password", 0o640)
    with pytest.raises(InputError, match="others may read"), prepared_server(home, first):
        pass


def test_sqlite_unless_a_database_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_DATABASE_CONNECTION_URL", raising=False)
    monkeypatch.setenv("PREFECT_API_URL", "http://another:4200/api")
    with prepared_server(tmp_path, free_port()) as hosted:
        pass
    found = hosted.environment()
    assert found["PREFECT_API_DATABASE_CONNECTION_URL"] == f"sqlite+aiosqlite:///{tmp_path}/prefect.db"
    assert found["PREFECT_SERVER_API_AUTH_STRING"] == hosted.password
    assert "PREFECT_API_URL" not in found
    assert found["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"].endswith("filesystem")
    assert hosted.command()[-4:-1] == ["--host", "127.0.0.1", "--port"]
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql+asyncpg://db/listflow")
    assert hosted.environment()["PREFECT_API_DATABASE_CONNECTION_URL"] == "postgresql+asyncpg://db/listflow"


def test_a_home_has_one_server_at_a_time(cli: Cli, tmp_path: Path) -> None:
    """The process that holds the lock becomes another program, as the server does, and is killed."""
    home, port = tmp_path / "home", free_port()
    script = (
        "import os, sys; from pathlib import Path; from listflow.flows.server.hosting import prepared_server\n"
        f"with prepared_server(Path({str(home)!r}), {port}):\n"
        "    os.execve('/bin/sh', ['sh', '-c', 'echo ready; read nothing'], os.environ)"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"ready\n"
        before = {path: path.stat().st_mtime_ns for path in home.iterdir()}
        result = cli("server", f"--home={home}", f"--port={free_port()}")
        first.kill()
    assert result.returncode == 2
    assert result.stderr.startswith(f"listflow: a server of {home} is running already")
    assert {path: path.stat().st_mtime_ns for path in home.iterdir()} == before
    with prepared_server(home, port):
        pass


def test_a_taken_port_is_one_sentence(cli: Cli, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        result = cli("server", f"--home={tmp_path / 'home'}", f"--port={port}")
    assert result.returncode == 2
    assert f"port {port} of this machine is taken" in result.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("home", ["file", "file/home", "home"])
def test_a_home_that_cannot_be_written(tmp_path: Path, home: str) -> None:
    """Something else lies in the place of the folder, of one above it, or of a file in it."""
    (tmp_path / "file").touch()
    (tmp_path / "home" / ".lock").mkdir(parents=True)
    with pytest.raises(InputError) as raised, prepared_server(tmp_path / home, free_port()):
        pass
    told = str(raised.value)
    assert told.startswith(f"{tmp_path / home}: nothing can be stored there (")
    assert told.endswith("); free some space, or give another --home.")


def test_a_home_that_cannot_be_written_and_a_damaged_database(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(cli("server", f"--home={tmp_path / 'file' / 'home'}"), "file/home: ", "Not a directory", "another --home")
    (tmp_path / "prefect.db").write_text("no database " * 100)
    refused(cli("server", f"--home={tmp_path}"), "prefect.db: file is not a database", "move it away")


def test_a_server_imports_nothing_from_the_current_folder(tmp_path: Path) -> None:
    """It holds the password. The process becomes the server, which is asked for its version alone."""
    for name in ("click", "secrets", "prefect", "uvicorn"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the current folder')\n")
    hosted = Hosted(tmp_path / "home", 4200, "listflow:x")
    command = [*hosted.command()[:4], "--version"]
    done = subprocess.run(command, env=hosted.environment(), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == prefect.__version__
