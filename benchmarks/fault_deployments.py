"""Interrupting the run of a deployment: of ``listflow serve``, or of a process worker."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import fault_tools as tools
from fault_bench import Bench, Chain, words
from fault_commands import ENDED, cancel
from fault_tools import COMMAND, Place

ROOT = str(Path(__file__).parent.parent)


def of_deployment(bench: Bench, chain: Chain, moments: list[Place], draw: random.Random) -> list[list[Place]]:
    """The run of a deployment is killed or cancelled, with its worker where it has one, and goes on by itself."""
    on_worker, attempts = chain.kind.endswith("worker"), []
    looking = begin_worker(bench) if on_worker else begin_serving(bench)
    try:
        deployment = deployed(bench, on_worker)
        flow_run = schedule(bench, deployment)
        for moment in moments:
            told = bench.reach(moment, lambda flow_run=flow_run: bench.server.state_of(flow_run) not in ENDED)
            attempts.append(told)
            if bench.server.state_of(flow_run) in ENDED:
                chain.notes.append(f"{bench.server.state_of(flow_run)} before {moment.key}")
                flow_run = schedule(bench, deployment)
                continue
            chain.hits.append(words(told))
            child = next(place.process for place in reversed(told or bench.journal.all))
            if chain.kind.startswith("cancel"):
                cancel(bench, chain, lambda child=child: not Path(f"/proc/{child}").exists(), flow_run)
                told += bench.journal.read()
                flow_run = schedule(bench, deployment)
                continue
            if on_worker:
                tools.kill_group(looking)
            os.kill(child, signal.SIGKILL)
            if on_worker:
                bench.server.ask(f"flow_runs/{flow_run}/set_state", state={"type": "CRASHED"}, force=True)
                looking = begin_worker(bench)
            tools.wait_until(lambda flow_run=flow_run: bench.server.state_of(flow_run) == "CRASHED", "CRASHED")
            told += bench.journal.read()
            again = {"type": "SCHEDULED", "name": "AwaitingRetry"}
            bench.server.ask(f"flow_runs/{flow_run}/set_state", state=again, force=False)
        tools.wait_until(lambda: bench.server.state_of(flow_run) in ENDED, "the end")
        if (state := bench.server.state_of(flow_run)) != "COMPLETED":
            chain.notes.append(f"the last run ended as {state}")
    finally:
        tools.kill_group(looking)
    return [*attempts, bench.journal.read()]


def begin_serving(bench: Bench) -> subprocess.Popen[bytes]:
    log = (bench.out / "serve.log").open("ab")
    return tools.start([*COMMAND, "serve", str(bench.first), "--every=48"], bench.server.client, log)


def begin_worker(bench: Bench) -> subprocess.Popen[bytes]:
    log = (bench.out / "worker.log").open("ab")
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool=faults", "--type=process"]
    return tools.start(command, bench.server.client, log)


def deployed(bench: Bench, on_worker: bool) -> str:
    """The deployment that ``serve`` made, or one for the worker's pool."""
    server = bench.server
    if not on_worker:
        found = tools.wait_until(lambda: server.ask("deployments/filter"), "the deployment")
        tools.wait_until(lambda: server.ask("deployments/filter", deployments={"name": {"any_": ["first"]}}), "serve")
        return next(str(one["id"]) for one in found if one["name"] == "first")
    tools.wait_until(lambda: server.ask("work_pools/filter"), "the work pool")
    made = {
        "name": "worker", "flow_id": server.ask("flows/", name="listflow-continue")["id"], "work_pool_name": "faults",
        "entrypoint": "listflow.flows.run.continuation.go_on", "parameters": {"run": str(bench.first)},
        "pull_steps": [],
        "job_variables": {"working_dir": ROOT},
    }  # fmt: skip
    return str(server.ask("deployments/", **made)["id"])


def schedule(bench: Bench, deployment: str) -> str:
    """A run of ``deployment``, to start now."""
    return str(bench.server.ask(f"deployments/{deployment}/create_flow_run", state={"type": "SCHEDULED"})["id"])
