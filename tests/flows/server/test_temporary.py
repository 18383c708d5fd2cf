"""The temporary server of a command: what it says when it cannot start, what it imports, and when it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from commands import COMMAND, refused
from forks import started
from real_server import wait_until

SECONDS = 150  # where a server was waited for until its time was up, it was 180


def environment(**own: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | own


def options(cwd: Path, tiny_files: dict[str, Path]) -> list[str]:
    files = [f"--{name}={tiny_files[name]}" for name in ("task", "labelled", "unlabelled", "backbone")]
    return [*files, f"--run-dir={cwd / 'run'}"]


def test_no_folder_that_can_be_written(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    """A file where the home should be stops root too."""
    (tmp_path / "file").write_text("")
    result = subprocess.run(
        [*COMMAND, "run", *options(tmp_path, tiny_files)], cwd=tmp_path, env=environment(HOME=str(tmp_path / "file")),
        capture_output=True, text=True, check=False, timeout=SECONDS,
    )  # fmt: skip
    refused(result, f"{tmp_path / 'file' / '.prefect'}: ", "Not a directory", "set PREFECT_HOME")


def test_a_broken_database(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "prefect.db").write_text("no database " * 100)
    own = environment(PREFECT_HOME=str(tmp_path / "home"))
    with started("run", *options(tmp_path, tiny_files), env=own, cwd=tmp_path) as running:
        result = running.end(SECONDS)
    refused(result, "file is not a database", str(tmp_path / "home"))
    assert not (tmp_path / "run").exists()


STARTS = """\
from listflow.flows.cli.console import prepare; prepare()
import httpx
from listflow.flows.server.client import awaited_server
from listflow.flows.server.temporary import TemporaryServer
with awaited_server():
    print(TemporaryServer().server_process.poll())
print(httpx.get(f"{TemporaryServer().api_url}/health").status_code)
from prefect.server.api.server import SubprocessASGIServer
print(SubprocessASGIServer().server_process.pid, flush=True)
input()
"""


def test_from_its_start_to_its_end(tmp_path: Path) -> None:
    """It starts while something else is done, imports nothing of the current folder, and ends when its starter is
    killed."""
    for name in ("click", "secrets", "uvicorn", "sqlalchemy"):
        (tmp_path / f"{name}.py").write_text(f"open('{name}.was_run', 'w'); raise SystemExit(9)\n")
    own, pipe = environment(PREFECT_HOME=str(tmp_path / "home")), subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-P", "-c", STARTS], cwd=tmp_path, env=own, stdin=pipe, stdout=pipe, text=True
    ) as starter:
        assert starter.stdout is not None
        meanwhile, answer, server = (starter.stdout.readline().strip() for _ in range(3))
        starter.kill()
    assert (meanwhile, answer) == ("None", "200")
    assert not list(tmp_path.glob("*.was_run"))
    wait_until(lambda: _is_gone(int(server)), 20)


def _is_gone(process: int) -> bool:
    """Also where nobody has asked for its exit code yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
