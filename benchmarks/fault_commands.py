"""Interrupting ``listflow run``, or the server that it talks to."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import fault_tools as tools
from fault_bench import Bench, Chain, words
from fault_tools import Place

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def of_command(bench: Bench, chain: Chain, moments: list[Place], draw: random.Random) -> list[list[Place]]:
    """``listflow run`` is killed or cancelled, and resumed."""
    attempts = []
    for number, moment in enumerate(moments):
        process = bench.start()
        if chain.kind == "process" and number == 0:
            time.sleep(draw.uniform(0.1, 2))
            told = bench.journal.read()
        else:
            told = bench.reach(moment, lambda process=process: process.poll() is None)
        attempts.append(told)
        if process.poll() is not None:
            chain.notes.append(f"ended with {process.returncode} before {moment.key}")
            continue
        if chain.kind == "cancel":
            cancel(bench, chain, lambda process=process: process.poll() is not None)
            if process.wait() != 130:
                chain.notes.append(f"exit code {process.returncode}")
        else:
            process.kill()
        told += bench.journal.read()
        chain.hits.append(words(told))
    finish(bench, chain)
    return [*attempts, bench.journal.read()]


def of_server(bench: Bench, chain: Chain, moments: list[Place], draw: random.Random) -> list[list[Place]]:
    """The server is killed and comes back while ``listflow run`` goes on."""
    process, told = bench.start(), list[Place]()
    for moment in moments:
        told += bench.reach(moment, lambda: process.poll() is None)
        if process.poll() is not None:
            chain.notes.append(f"ended with {process.returncode} before {moment.key}")
            break
        bench.server.kill()
        chain.hits.append(words(told))
        time.sleep(2)
        bench.server.start()
    if process.wait():
        chain.notes.append(f"exit code {process.returncode}: {(bench.out / 'command.log').read_text()[-200:]}")
        finish(bench, chain)
    return [[*told, *bench.journal.read()]]


def of_gone(bench: Bench, chain: Chain, moments: list[Place], draw: random.Random) -> list[list[Place]]:
    """The server is killed and stays away until ``listflow run`` has given up."""
    process, (moment,) = bench.start(), moments
    told = bench.reach(moment, lambda: process.poll() is None)
    bench.server.kill()
    chain.hits.append(words(told))
    began, code = time.monotonic(), process.wait()
    said = (bench.out / "command.log").read_text()[-200:]
    chain.notes.append(f"exit code {code} after {time.monotonic() - began:.0f} s: {said}")
    told += bench.journal.read()
    bench.server.start()
    finish(bench, chain)
    return [told, bench.journal.read()]


def cancel(bench: Bench, chain: Chain, gone: Callable[[], bool], flow_run: str | None = None) -> None:
    """As the UI does it; waits until the process is ``gone`` and the state is Cancelled."""
    found = flow_run or str((bench.server.newest("listflow") or {})["id"])
    began = time.monotonic()
    bench.server.ask(f"flow_runs/{found}/set_state", state={"type": "CANCELLING"}, force=False)
    tools.wait_until(gone, "the end of a cancelled process", 60)
    chain.slowest = max(chain.slowest, time.monotonic() - began)
    tools.wait_until(lambda: bench.server.state_of(found) in ENDED, "a state after the cancellation", 60)
    if (state := bench.server.state_of(found)) != "CANCELLED":
        chain.notes.append(f"ended as {state}")


def finish(bench: Bench, chain: Chain) -> None:
    if bench.start().wait():
        chain.notes.append(f"could not go on: {(bench.out / 'command.log').read_text()[-300:]}")
