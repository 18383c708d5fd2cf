"""What benchmarks/faults.py needs: a tiny run, a Prefect server to kill, what a run's files say, and how far it is."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import transformers

from listflow.data.corpora.ingest import ingest
from listflow.data.task import Columns
from listflow.flows.cli.console import ALWAYS, QUIET
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "helpers"))

from tiny import sentences, tiny_backbone, write_jsonl  # noqa: E402

COMMAND = (sys.executable, "-W", "ignore", "-c", "from listflow.flows.cli.main import main; main()")
PATIENCE = 300.0


@dataclass(frozen=True)
class Place:
    """A line of a journal: how far a run is."""

    process: int
    round: int
    phase: str
    done: int
    total: int

    @property
    def key(self) -> tuple[int, str, int]:
        return self.round, self.phase, self.done

    @property
    def trained(self) -> bool:
        return self.phase in {"labelled", "warmup", "reweighted", "tail"}


def make_inputs(folder: Path) -> None:
    """A tiny backbone, a task, labelled and test rows, and a corpus."""
    backbone = tiny_backbone()
    backbone.model.save_pretrained(folder / "backbone")
    backbone.tokenizer.save_pretrained(folder / "backbone")
    words = 'name: tiny\ntemplate: "{text} it was {mask} ."\nlabels: {negative: bad, positive: good}\n'
    (folder / "task.yaml").write_text(words)
    write_jsonl(folder / "labelled.jsonl", sentences(12, 1))
    write_jsonl(folder / "test.jsonl", sentences(200, 3))
    grow(folder, 6000, 2)


def grow(folder: Path, count: int, seed: int) -> None:
    """Adds ``count`` rows to the corpus of ``folder``."""
    rows = write_jsonl(folder / "more.jsonl", sentences(count, seed, labelled=False))
    ingest(folder / "corpus", [str(rows)], Columns())


def overlay(folder: Path, run: Path) -> dict[str, Any]:
    """Values of a run of a few seconds, whose phases are all long enough to be hit."""
    return {
        "task": str(folder / "task.yaml"), "run_dir": str(run), "checkpoint_seconds": 0.2,
        "data": {
            "labelled": str(folder / "labelled.jsonl"), "test": str(folder / "test.jsonl"),
            "unlabelled": [str(folder / "corpus")],
        },
        "backbone": {"name": str(folder / "backbone"), "precision": "fp32", "device": "cpu"},
        "teacher": {"epochs": 15, "batch": 4},
        "student": {"steps": 60, "batch": 16, "warmup": 0.6, "tail_epochs": 10, "tail_batch": 4},
        "stage": {"width": 4, "layers": "top:1"}, "reweight": {"batch": 4}, "rounds": {"count": 2, "sample": 200},
    }  # fmt: skip


def reference(values: dict[str, Any]) -> tuple[dict[str, str], list[Place]]:
    """(what an uninterrupted run leaves behind, how it went), without Prefect."""

    def run() -> Any:
        told: list[Any] = []
        self_train(
            build_config("fast", values), lambda now: told.append((0, now.round, now.phase, now.done, now.total))
        )
        return contents(Path(values["run_dir"])), told

    found, told = apart(run)
    return found, [Place(*place) for place in told]


def contents(run: Path) -> dict[str, str]:
    """sha256 of every file of a run. Seconds are left out of JSON, and the page of the report, drawn from it, whole."""
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and path.name not in {".lock", "report.html"}]
    return {str(path.relative_to(run)): hashlib.sha256(_lasting(path)).hexdigest() for path in files}


def _lasting(path: Path) -> bytes:
    if path.suffix != ".json":
        return path.read_bytes()
    return json.dumps(_without_seconds(json.loads(path.read_text("utf-8"))), sort_keys=True).encode()


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_seconds(item) for key, item in value.items() if key != "seconds"}
    return [_without_seconds(item) for item in value] if isinstance(value, list) else value


def wait_until(true: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """The first true value of ``true()``; TimeoutError that names ``what`` after ``seconds``."""
    end = time.monotonic() + seconds
    while not (value := true()):
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.005)
    return value


class Journal:
    """What the processes of a run tell; ``read`` returns the lines that are new since it was asked last."""

    def __init__(self, path: Path) -> None:
        self.path, self.all = path, list[Place]()
        path.write_text("")
        self._offset = 0

    def read(self) -> list[Place]:
        with self.path.open() as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind("\n") + 1]
        self._offset += len(whole)
        fresh = []
        for line in whole.splitlines():
            process, number, phase, done, total, _ = line.split("\t")
            fresh.append(Place(int(process), int(number), phase, int(done), int(total)))
        self.all += fresh
        return fresh


class Server:
    """A Prefect server of its own on a free port, and the environment of its clients."""

    def __init__(self, folder: Path, journal: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.storage = folder / "storage"
        self._own = {
            **os.environ, **ALWAYS, **QUIET, "PREFECT_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1",
            "PREFECT_LOCAL_STORAGE_PATH": str(self.storage), "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        paths = f"{HERE / 'journal'}{os.pathsep}{HERE.parent}"
        self.client = {
            **self._own, "PREFECT_API_URL": self.url, "PYTHONPATH": paths, "FAULTS_JOURNAL": str(journal),
            "PREFECT_RUNNER_POLL_FREQUENCY": "2", "PREFECT_WORKER_QUERY_SECONDS": "2",
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        self._process = start([sys.executable, *command], self._own)
        wait_until(self._answers, "the server")

    def kill(self) -> None:
        assert self._process is not None
        kill_group(self._process)

    def ask(self, path: str, **query: Any) -> Any:
        """What the server answers; a busy one is asked again."""
        for _ in range(10):
            answer = httpx.post(f"{self.url}/{path}", json=query, timeout=60)
            if answer.status_code != 503:
                break
            time.sleep(1)
        answer.raise_for_status()
        return answer.json()

    def state_of(self, flow_run: str) -> str:
        try:
            return str(httpx.get(f"{self.url}/flow_runs/{flow_run}", timeout=60).json()["state_type"])
        except httpx.TransportError:
            return "away"

    def newest(self, flow: str) -> dict[str, Any] | None:
        """The flow run of ``flow`` that was made last."""
        found = self.ask("flow_runs/filter", flows={"name": {"any_": [flow]}}, sort="START_TIME_DESC", limit=1)
        return dict(found[0]) if found else None

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


class Forked:
    """``listflow`` with ``arguments``, in a child of this process, which has imported everything and computed nothing.

    A command of its own would import for seconds, and no kill should be spent on that.
    """

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            os.dup2(1, 2)
            try:
                _command(arguments)
            finally:
                os._exit(1)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int:
        return int(wait_until(lambda: self.poll() is not None, "the end of a command") and self.returncode)

    def kill(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)
        self.wait()


def _command(arguments: list[str]) -> None:
    from step_journal import keep_journal

    from listflow.flows.cli.main import main

    keep_journal()
    sys.argv = ["listflow", *arguments]
    code: Any = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code or 0))


def prepared(environment: dict[str, str]) -> None:
    """Imports all that a run needs, under ``environment``, which Prefect reads as it is imported."""
    os.environ.update(environment)
    sys.path.insert(0, str(HERE / "journal"))
    ours = ("listflow.flows.run.self_training", "listflow.flows.server.client", "listflow.flows.cli.main")
    for name in ("step_journal", *ours, "prefect.server.api.server"):
        importlib.import_module(name)
    transformers.BertForMaskedLM, transformers.AutoTokenizer  # noqa: B018  (imported when they are asked for)


def apart(work: Callable[[], Any]) -> Any:
    """What ``work`` returns, as JSON, from a child: who forks must not compute."""
    with tempfile.NamedTemporaryFile() as file:
        child = os.fork()
        if child == 0:
            try:
                Path(file.name).write_text(json.dumps(work()))
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        return json.loads(Path(file.name).read_text())


def start(command: list[str], environment: dict[str, str], out: Any = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """A process with a group of its own."""
    return subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a process and to all that it started; nothing where it was waited for before."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
