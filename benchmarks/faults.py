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
import time
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # other numbers of threads are other bytes

import fault_tools as tools
from fault_bench import Bench, Chain, benches, repeated
from fault_commands import of_command, of_gone, of_server
from fault_deployments import of_deployment
from fault_tools import Place

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
KIND = {"process": of_command, "cancel": of_command, "server": of_server, "gone": of_gone}


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
