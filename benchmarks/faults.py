"""Kills at random moments, and whether the run that goes on ends with the bytes of one that was left alone.

    python benchmarks/faults.py OUT [--seed 1] [--only KIND ...]
    python benchmarks/faults.py OUT --table

A chain is one run that is interrupted again and again, and goes on each time, until it ends; then every file of it is
compared with those of a run without Prefect and without interruption. A chain that is in OUT already is not done again.
Moments are drawn evenly over the phases of a run, then over the lines that a phase tells.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # other numbers of threads are other bytes

import fault_tools as tools
from fault_tools import COMMAND, Forked, Place, Server

from flows.lineage import next_of

# Chains, and interruptions in each.
PLAN = {
    "process": (4, 9), "cancel": (1, 6), "server": (1, 6), "child": (1, 5), "worker": (1, 5), "cancel child": (1, 3),
    "cancel worker": (1, 3), "gone": (1, 1),
}  # fmt: skip
NAMES = {
    "process": ("SIGKILL of `listflow run`", "`listflow resume`"),
    "cancel": ("cancelled, `listflow run`", "`listflow resume`"),
    "server": ("SIGKILL of the Prefect server, back after 2 s", "went on by itself"),
    "gone": ("SIGKILL of the Prefect server, back after the run has ended", "`listflow resume`"),
    "child": ("SIGKILL of the run of `listflow serve`", "retry"),
    "worker": ("SIGKILL of a process worker and its run", "marked crashed, retry"),
    "cancel child": ("cancelled, `listflow serve`", "the next run"),
    "cancel worker": ("cancelled, process worker", "the next run"),
}
ROOT = str(Path(__file__).parent.parent)


@dataclass
class Chain:
    """What a chain of interruptions did. ``slowest``: seconds from a cancellation to the end of the process."""

    kind: str
    number: int
    hits: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    repeated: int = 0
    slowest: float = 0.0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


class Bench:
    """A server, a run to interrupt, what it should end with, and in which order its lines come."""

    def __init__(self, out: Path, server: Server, journal: tools.Journal, run: Path, first: Path | None) -> None:
        self.out, self.server, self.journal, self.run, self.first = out, server, journal, run, first
        self.expected: dict[str, str] = {}
        self.order: list[Place] = []

    def start(self) -> Forked:
        """``listflow run``, or ``resume`` where there is something to go on with."""
        new = ["run", f"--config={self.out / 'run.yaml'}"]
        known = (self.run / "config.json").exists()
        return Forked(["resume", str(self.run)] if known else new, self.out / "command.log")

    def moments(self, draw: random.Random, count: int) -> list[Place]:
        """``count`` lines in their order, of as many phases as can be."""
        phases = [list(lines) for _, lines in groupby(self.order, key=lambda place: (place.round, place.phase))]
        chosen = draw.sample(phases, min(count, len(phases)))
        places = {draw.choice(lines) for lines in chosen}
        return sorted(places, key=self.order.index)

    def reach(self, moment: Place, alive: Callable[[], bool]) -> list[Place]:
        """The lines since the last call, up to ``moment`` or one after it; ends early when nothing is ``alive``."""
        place_of, told = {place.key: i for i, place in enumerate(self.order)}, list[Place]()
        wanted = place_of[moment.key]

        def reached() -> bool:
            told.extend(self.journal.read())
            return any(place_of.get(place.key, -1) >= wanted for place in told) or not alive()

        tools.wait_until(reached, f"{moment}")
        return told

    def clear(self) -> None:
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.rmtree(self.server.storage, ignore_errors=True)
        self.journal.read()


def words(told: list[Place]) -> str:
    """Where a run was when it was interrupted."""
    last = next((place for place in reversed(told) if place.phase != "opened"), None)
    if last is None:
        return "start"
    phase = last.phase.partition(",")[0]
    return f"after {phase}" if last.done == last.total else phase


def repeated(attempts: list[list[Place]]) -> int:
    """The most steps of a training that an attempt took again."""
    reached, worst = dict[int, int](), 0
    for told in attempts:
        first: dict[int, int] = {}
        for place in filter(lambda place: place.trained, told):
            if first.setdefault(place.round, place.done) == place.done:
                worst = max(worst, reached.get(place.round, 0) - place.done + 1)
            reached[place.round] = place.done
    return worst


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


ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
KIND = {"process": of_command, "cancel": of_command, "server": of_server, "gone": of_gone}


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
        "entrypoint": "flows.continuing.go_on", "parameters": {"run": str(bench.first)}, "pull_steps": [],
        "job_variables": {"working_dir": ROOT},
    }  # fmt: skip
    return str(server.ask("deployments/", **made)["id"])


def schedule(bench: Bench, deployment: str) -> str:
    """A run of ``deployment``, to start now."""
    return str(bench.server.ask(f"deployments/{deployment}/create_flow_run", state={"type": "SCHEDULED"})["id"])


def one_chain(bench: Bench, kind: str, number: int, seed: int) -> Chain:
    bench.clear()
    draw, began = random.Random(f"{seed} {kind} {number}"), time.monotonic()
    chain = Chain(kind, number)
    attempts: list[list[Place]] = []
    try:
        attempts = KIND.get(kind, of_deployment)(bench, chain, bench.moments(draw, PLAN[kind][1]), draw)
    except TimeoutError as error:
        chain.notes.append(f"waited in vain: {error}")
    found = tools.contents(bench.run)
    names = found.keys() | bench.expected.keys()
    chain.differing = sorted(name for name in names if found.get(name) != bench.expected.get(name))
    chain.repeated, chain.seconds = repeated(attempts), time.monotonic() - began
    return chain


@contextmanager
def benches(out: Path) -> Iterator[dict[bool, Bench]]:
    """For runs of the command line (False) and of deployments (True)."""
    inputs, run, first = out / "inputs", out / "runs" / "plain", out / "lineage" / "first"
    for before in ("inputs", "runs", "lineage", "home"):
        shutil.rmtree(out / before, ignore_errors=True)
    inputs.mkdir(parents=True)
    tools.apart(lambda: tools.make_inputs(inputs))
    (out / "run.yaml").write_text(json.dumps(tools.overlay(inputs, run)))
    journal = tools.Journal(out / "journal.txt")
    server = Server(out, journal.path)
    tools.prepared(server.client)
    plain = Bench(out, server, journal, run, None)
    going_on = Bench(out, server, journal, first.with_name("first-002"), first)
    tools.reference(tools.overlay(inputs, first))
    tools.apart(lambda: tools.grow(inputs, 300, 5))
    following = next_of(first).config
    assert following is not None
    going_on.expected, going_on.order = tools.reference(following.model_dump(mode="json"))
    plain.expected, plain.order = tools.reference(tools.overlay(inputs, run))
    server.start()
    try:
        yield {False: plain, True: going_on}
    finally:
        server.kill()


def table(out: Path) -> str:
    """The chains of ``out`` by kind, as Markdown."""
    lines = [json.loads(line) for line in (out / "chains.jsonl").read_text().splitlines()]
    rows = [
        "| interrupted | times | in | went on by | runs with the same bytes | steps taken again, at most |",
        "|---|---:|---|---|---:|---:|",
    ]
    for kind, (what, how) in NAMES.items():
        chains = [line for line in lines if line["kind"] == kind]
        hits = [hit for chain in chains for hit in chain["hits"]]
        if not chains:
            continue
        equal = sum(not chain["differing"] for chain in chains)
        worst, slowest = max(chain["repeated"] for chain in chains), max(chain["slowest"] for chain in chains)
        ended = f"; stopped within {slowest:.1f} s" if slowest else ""
        places = ", ".join(sorted(set(hits)))
        rows.append(f"| {what} | {len(hits)} | {places} | {how}{ended} | {equal} of {len(chains)} | {worst} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=PLAN, default=list(PLAN))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if not options.table:
        measure(out, options.only, options.seed)
    print(table(out))


def measure(out: Path, kinds: list[str], seed: int) -> None:
    """All chains of ``kinds`` that ``out`` does not have yet."""
    record = out / "chains.jsonl"
    record.touch()
    done = {(chain["kind"], chain["number"]) for chain in map(json.loads, record.read_text().splitlines())}
    with benches(out) as both, record.open("a", buffering=1) as file:
        for kind in kinds:
            for number in range(1, PLAN[kind][0] + 1):
                if (kind, number) not in done:
                    chain = one_chain(both[kind not in KIND], kind, number, seed)
                    print(chain, flush=True)
                    file.write(json.dumps(asdict(chain)) + "\n")


if __name__ == "__main__":
    main()
