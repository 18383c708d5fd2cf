"""A served deployment that is asked to end: it does, and its schedule is off."""

from __future__ import annotations

import signal
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from commands import Result
from forks import started
from prefect.client.orchestration import get_client

from listflow.flows.run.deployment import Wanted, deployment_of

pytest_plugins = ["flow_fixtures"]


@pytest.mark.parametrize("interrupts", [signal.SIG_IGN, signal.default_int_handler], ids=["ignored", "heard"])
def test_sigterm_ends_it_and_switches_its_schedule_off(
    environment: dict[str, str], finished: tuple[Path, Result], tmp_path: Path, interrupts: object
) -> None:
    """All that a script starts with ``&`` ignores Ctrl-C, and so did what this command sends itself."""
    name = f"ends-{interrupts is signal.SIG_IGN}"
    serve = ("serve", finished[0], "--every", "24", "--name", name)
    with started(*serve, env=environment, cwd=tmp_path, interrupts=interrupts) as serving:
        assert serving.stdout.readline() == f"serves listflow-continue/{name}, until it is stopped\n"
        _wait_for_handler(serving.process)
        serving.send(signal.SIGTERM)
        result = serving.end()
    assert result.returncode == 0, result.stderr
    with get_client(sync_client=True) as client:
        assert client.read_deployment_by_name(f"listflow-continue/{name}").paused


def test_a_description_is_shown_as_text(finished: tuple[Path, Result], tmp_path: Path) -> None:
    folder = tmp_path / "![x](http:x)"
    folder.symlink_to(finished[0])
    described = deployment_of(Wanted(folder, "0 6 * * mon", None, (), "name"))["description"]
    assert described == r"Goes on from !\[x\](http:x) with rows that are new since."


def _wait_for_handler(process: BaseProcess) -> None:
    """Until SIGTERM is caught: before, it ends any process."""
    caught = 0
    while not caught >> (signal.SIGTERM - 1) & 1:
        assert process.exitcode is None
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1], 16)
