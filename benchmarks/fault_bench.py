"""What is interrupted: a chain of interruptions, and the bench that it happens on."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import fault_tools as tools
from fault_tools import Forked, Place, Server

from listflow.pipeline.run.lineage import next_of


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
