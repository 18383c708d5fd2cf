"""From nothing to a scheduled run that a corpus event started: commands typed, and seconds.

    python benchmarks/up.py [--database postgresql+asyncpg://...] [--rounds N]

In a fresh folder, on the demo's texts and with the presets as they are: two thirds of the pool are ingested,
`listflow up` makes the run and serves it on a schedule, the rest is ingested in another shell, and the run that this
started is waited for.
Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

DEMO = Path(__file__).parents[1] / "data" / "demo"
COMMAND = (sys.executable, "-c", "from listflow.flows.cli.main import main; main()")
PATIENCE = 3600.0


def measure(folder: Path, database: str | None, rounds: int) -> dict[str, object]:
    """Commands that were typed, and the seconds from the first one to each step."""
    rows = (DEMO / "unlabelled.jsonl").read_text("utf-8").splitlines(keepends=True)
    cut = 2 * len(rows) // 3
    (folder / "march.jsonl").write_text("".join(rows[:cut]), "utf-8")
    (folder / "april.jsonl").write_text("".join(rows[cut:]), "utf-8")
    labelled, test = DEMO / "labelled.jsonl", DEMO / "test.jsonl"
    own = {"PREFECT_HOME": str(folder / "prefect")} | (
        {"PREFECT_API_DATABASE_CONNECTION_URL": database} if database else {}
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | own
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def ingest(file: str) -> None:
        command = [*COMMAND, "ingest", "tickets", file, "--keep-out", str(labelled), "--keep-out", str(test)]
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)

    began = time.monotonic()
    seconds: dict[str, float] = {}

    def passed(step: str) -> None:
        seconds[step] = round(time.monotonic() - began, 1)

    ingest("march.jsonl")
    passed("first texts are in")
    up = [
        *COMMAND, "up", "runs/tickets", "--labelled", str(labelled), "--test", str(test), "--corpus", "tickets",
        "--cron", "0 6 * * mon", "--set", f"rounds.count={rounds}", "--port", str(port),
    ]  # fmt: skip
    log = folder / "up.log"
    with log.open("wb") as file, subprocess.Popen(up, cwd=folder, env=environment, stdout=file, stderr=file) as process:
        try:
            for words, step in ((r"^  pages ", "server answers"), (r"^serves ", "first run is done, and is served")):
                _wait_for(lambda words=words: re.search(words, log.read_text("utf-8"), re.M), process)  # type: ignore[misc]
                passed(step)
            ingest("april.jsonl")
            passed("more texts are in")
            _wait_for(lambda: any((folder / "runs" / "tickets-002").glob("*")), process)
            passed("the run of the event has begun")
            _wait_for((folder / "runs" / "tickets-002" / "report.json").exists, process)
            passed("the run of the event is done")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
    passed("all has ended")
    return {
        "commands": 3, "database": database.partition(":")[0] if database else "sqlite", "rounds": rounds,
        "rows": [cut, len(rows) - cut], "exit": process.returncode, "seconds": seconds,
    }  # fmt: skip


def _wait_for(true: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"`listflow up` ended with {process.poll()}, or took too long")
        time.sleep(0.2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", help="address of a PostgreSQL database; without it, SQLite")
    parser.add_argument("--rounds", type=int, default=6)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        print(json.dumps(measure(Path(made), given.database, given.rounds)))
