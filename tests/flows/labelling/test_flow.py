"""Labelling as a flow: whoever works, whoever is killed, the folder ends with the same bytes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from commands import Cli, cancel
from forks import forking
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from tiny import sentences, tiny_overlay, write_jsonl

from listflow.data.corpora.ingest import ingest
from listflow.data.errors import InputError
from listflow.data.task import Columns
from listflow.flows.labelling import work_pool as label_pool
from listflow.flows.labelling.flow import TASKS_A_PASS, Unlabelled, label_corpus, ranges_of
from listflow.flows.labelling.request import LabelRequest, check_request
from listflow.pipeline.results import label_worker
from listflow.pipeline.results.label_worker import label_range, workers_here
from listflow.pipeline.results.labelling import Labelling, Stopped
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train

pytest_plugins = ["flow_fixtures"]
SHARDS = 12


@pytest.fixture(scope="module")
def run(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    self_train(build_config("fast", tiny_overlay(tiny_files, folder), {"rounds": {"count": 1}}))
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpora") / "tickets", SHARDS)


def make_corpus(folder: Path, shards: int, rows: int = 10) -> Path:
    source = write_jsonl(folder.parent / "rows.jsonl", sentences(shards * rows, 2, labelled=False))
    ingest(folder, [str(source)], Columns(), rows_a_shard=rows)
    return folder


@pytest.fixture(scope="module")
def expected(run: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that one process writes, without Prefect."""
    out = tmp_path_factory.mktemp("plain") / "out"
    return plain(run, corpus, out)


def plain(run: Path, corpus: Path, out: Path) -> dict[str, bytes]:
    work = Labelling.open(run, corpus, out)
    with work.begun():
        label_range(run, corpus, out, 1, work.manifest.last)
    return files(out)


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.parquet"))}


def asked(run: Path, corpus: Path, out: Path, **rest: Any) -> LabelRequest:
    return LabelRequest(run=str(run), corpus=str(corpus), output=str(out), **rest)


@pytest.fixture
def quick_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of runners are forks of one that has imported all. What they are sent is the same."""
    forked, get_context = forking(), multiprocessing.get_context
    monkeypatch.setattr(multiprocessing, "get_context", lambda how=None: forked if how == "spawn" else get_context(how))


@contextmanager
def cluster() -> Iterator[Any]:
    """A dask cluster whose two workers are threads of this process, which has imported all that they need."""
    from distributed import LocalCluster

    local = {"host": "127.0.0.1", "protocol": "tcp://", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(2, threads_per_worker=1, processes=False, **local) as found:
        yield found


@contextmanager
def meanwhile(out: Path, act: Callable[[], None], files_before: int = 3) -> Iterator[dict[str, int]]:
    """Calls ``act`` in a thread when some files are there; yields how many there were by then."""
    seen: dict[str, int] = {}

    def wait() -> None:
        end = time.monotonic() + 300
        while len(list(out.glob("*.parquet"))) < files_before and time.monotonic() < end:
            time.sleep(0.005)
        act()
        seen["files"] = len(list(out.glob("*.parquet")))

    thread = threading.Thread(target=wait)
    thread.start()
    yield seen
    thread.join()


def test_its_flow_run_has_the_tags_of_the_run_that_it_labels_with(
    server: None, run: Path, corpus: Path, tmp_path: Path
) -> None:
    state = label_corpus(asked(run, corpus, tmp_path / "out"), return_state=True)
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(state.state_details.flow_run_id)
    assert (found.name, sorted(found.tags)) == (f"tickets by {run.name}", ["list", "listflow", "verbalizer"])


@pytest.mark.parametrize("runner", ["threads", "processes", "dask"])  # a dask cluster of its own: the test of a kill
def test_every_runner_writes_the_same_bytes(
    server: None, quick_starts: None, run: Path, corpus: Path, expected: dict[str, bytes], tmp_path: Path, runner: str
) -> None:
    torch.set_num_threads(2)  # what processes do by themselves on two cores, and what makes other last digits
    with cluster() if runner == "dask" else nullcontext() as found:
        address = {"address": found.scheduler_address} if found else {}
        facts = label_corpus(asked(run, corpus, tmp_path / "out", runner=runner, workers=2, **address))
    assert files(tmp_path / "out") == expected
    assert (facts["shards"], facts["rows"], facts["rows_now"]) == (SHARDS, 10 * SHARDS, 10 * SHARDS)
    counts = pd.read_parquet(tmp_path / "out")["label"].value_counts().to_dict()
    assert {label: count for label, count in facts["per_class"].items() if count} == counts


SENDS = """
import cloudpickle, sys
import listflow.flows.labelling.request
from listflow.flows.labelling.flow import label_some
from listflow.flows.labelling.work_pool import label_shards
for path, sent in zip(sys.argv[1:], (label_some, label_shards), strict=True):
    open(path, "wb").write(cloudpickle.dumps(sent.fn.__annotations__["return"]))
assert "sklearn" not in sys.modules, "who labels measures nothing, and it takes a second of every worker"
"""
READS = """
import cloudpickle, os, sys
import prefect.task_engine
for path in sys.argv[1:]:
    if not os.fork():
        cloudpickle.load(open(path, "rb"))
        os._exit(0)
    assert not os.wait()[1], path
"""


def test_what_a_worker_is_sent_does_not_ask_what_was_imported_first(tmp_path: Path) -> None:
    """The command reads what is asked before it loads the flow, which loads the pool; a worker begins with what it is
    sent, whichever of both tasks."""
    sent = [str(tmp_path / name) for name in ("label_some", "label_shards")]
    subprocess.run([sys.executable, "-c", SENDS, *sent], check=True)
    read = subprocess.run([sys.executable, "-c", READS, *sent], capture_output=True, check=False)
    assert read.returncode == 0, read.stderr.decode()


def test_a_killed_dask_worker_changes_nothing(server: None, quick_starts: None, run: Path, tmp_path: Path) -> None:
    corpus, out = make_corpus(tmp_path / "tickets", 24), tmp_path / "out"

    def kill() -> None:
        workers = [child for child in multiprocessing.active_children() if "Dask Worker" in child.name]
        assert len(workers) == 2
        os.kill(workers[0].pid or 0, signal.SIGKILL)

    with meanwhile(out, kill) as seen:
        label_corpus(asked(run, corpus, out, runner="dask", workers=2))
    assert 3 <= seen["files"] < 24
    assert files(out) == plain(run, corpus, tmp_path / "plain")
    assert not list(out.rglob(".*.part"))


@pytest.mark.long
def test_a_killed_process_is_made_good_by_others(server: None, run: Path, tmp_path: Path) -> None:
    corpus, out = make_corpus(tmp_path / "tickets", 24), tmp_path / "out"

    def kill() -> None:
        os.kill(next(child.pid for child in multiprocessing.active_children() if child.pid), signal.SIGKILL)

    with meanwhile(out, kill) as seen:
        label_corpus(asked(run, corpus, out, runner="processes", workers=2))
    assert 3 <= seen["files"] < 24
    assert files(out) == plain(run, corpus, tmp_path / "plain")


def test_what_is_left_is_told_and_done_by_the_next(
    server: None, run: Path, corpus: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_shard = label_worker.label_shard

    def broken(work: Labelling, shard: Any, predictor: Any) -> None:
        if shard.number == 5:
            raise RuntimeError("no such luck")
        label_shard(work, shard, predictor)

    monkeypatch.setattr(label_worker, "label_shard", broken)
    out = tmp_path / "out"
    with pytest.raises(Unlabelled, match=f"1 of {SHARDS} shards are not labelled .*no such luck"):
        label_corpus(asked(run, corpus, out))
    before = {path.name: path.stat().st_ino for path in out.glob("*.parquet")}
    assert len(before) == SHARDS - 1
    monkeypatch.undo()
    assert label_corpus(asked(run, corpus, out))["rows_now"] == 10
    assert files(out) == expected
    assert before.items() <= {path.name: path.stat().st_ino for path in out.glob("*.parquet")}.items()


def test_a_large_corpus_has_few_task_runs() -> None:
    assert sum(TASKS_A_PASS) <= 60
    numbers = [*range(1, 501), *range(700, 1001)]
    found = ranges_of(numbers, 40)
    assert len(found) == 40
    assert [n for first, last in found for n in numbers if first <= n <= last] == numbers
    assert ranges_of([3, 9], 40) == [(3, 3), (9, 9)]


def test_the_ui_is_told(server: None, run: Path, corpus: Path, tmp_path: Path) -> None:
    label_corpus(asked(run, corpus, tmp_path / "out"))
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["list-labelling", "list-labelling-progress"]))
    with get_client(sync_client=True) as client:
        keys = {artifact.key for artifact in client.read_artifacts(artifact_filter=wanted)}
    assert keys == {"list-labelling", "list-labelling-progress"}


def test_an_interrupted_driver_cancels_its_children(
    run: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled, work = [], Labelling.open(run, corpus, tmp_path / "out")

    class Client:
        def set_flow_run_state(self, one: str, state: State[None]) -> None:
            if one == "shards 1":
                raise ObjectNotFound(OSError())
            cancelled.append((one, state.name))

    def start(work: Labelling, request: LabelRequest, a_range: tuple[int, int]) -> str:
        if a_range[0] == 4:
            raise KeyboardInterrupt
        return f"shards {a_range[0]}"

    monkeypatch.setattr(label_pool, "get_client", lambda sync_client: nullcontext(Client()))
    monkeypatch.setattr(label_pool, "_start", start)
    request = asked(run, corpus, work.folder, runner="pool", deployment="boxes")
    with pytest.raises(KeyboardInterrupt), work.begun():
        label_pool.run_children(work, request, [(n, n) for n in range(1, 5)], lambda: None)
    assert cancelled == [("shards 2", "Cancelling"), ("shards 3", "Cancelling")]
    with pytest.raises(Stopped):
        work.check_driven()


def test_without_a_word_every_core_works_alone(run: Path) -> None:
    assert workers_here(run) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("request_of", "message"),
    [
        ({"address": "tcp://127.0.0.1:1"}, "give --runner dask with it"),
        ({"runner": "pool"}, "--pool-deployment NAME go together"),
        ({"deployment": "boxes"}, "--pool-deployment NAME go together"),
    ],
)
def test_what_does_not_fit_is_refused(request_of: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_request(asked(Path("run"), Path("corpus"), Path("out"), **request_of))


def test_dask_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("listflow.flows.labelling.request.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'listflow\[dask\]'"):
        check_request(asked(Path("run"), Path("corpus"), Path("out"), runner="dask"))


def test_the_command(cli: Cli, run: Path, corpus: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = cli("label", run, corpus, f"--output={out}", "--workers=2")
    assert done.returncode == 0, done.stderr
    assert f"{10 * SHARDS} rows labelled in {SHARDS} files" in done.stdout
    assert files(out) == expected
    again = cli("label", run, corpus, f"--output={out}")
    assert again.returncode == 0, again.stderr
    assert "of them now" not in again.stdout


def test_the_command_says_how_to_go_on(
    cli: Cli, run: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> None:
        raise RuntimeError("no such luck")

    with monkeypatch.context() as patch:
        patch.setattr(label_worker, "label_shard", broken)
        failed = cli("label", run, corpus, f"--output={tmp_path / 'out'}")
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert "the same command again labels what is left" in failed.stderr
    with monkeypatch.context() as patch:
        patch.setattr("listflow.flows.labelling.flow.Watch.look", interrupt)
        stopped = cli("label", run, corpus, f"--output={tmp_path / 'out'}")
    assert stopped.returncode == 130
    assert "the same command again labels what is left" in stopped.stderr
    assert cli("label", run, corpus, f"--output={tmp_path / 'out'}").returncode == 0


def interrupt(watch: Any) -> None:
    raise KeyboardInterrupt


def test_what_a_worker_refuses_is_refused(
    cli: Cli, run: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(work: Labelling, *rest: Any) -> None:
        raise InputError(f"cannot write to {work.folder} (No space left on device); free some space")

    monkeypatch.setattr(label_worker, "label_shard", full)
    done = cli("label", run, corpus, f"--output={tmp_path / 'out'}")
    assert done.returncode == 2, done.stderr
    assert done.stderr == f"listflow: cannot write to {tmp_path / 'out'} (No space left on device); free some space\n"


def test_a_cancelled_labelling_stops_and_goes_on(
    cli: Cli, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, out, label_shard = make_corpus(tmp_path / "tickets", 60), tmp_path / "out", label_worker.label_shard

    def slow(*arguments: Any) -> None:
        time.sleep(0.3)
        label_shard(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(label_worker, "label_shard", slow)
        with meanwhile(out, copy_context_of(cancel_running)) as seen:
            done = cli("label", run, corpus, f"--output={out}", "--workers=1")
    assert done.returncode == 130, done.stderr
    assert "the same command again labels what is left" in done.stderr
    assert 3 <= seen["files"] <= len(files(out)) < 60
    with get_client(sync_client=True) as client:
        newest = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]
    assert newest.state is not None
    assert (newest.state.name, newest.state.message) == (
        "Cancelled", "Cancelled; the same request labels what is left.",
    )  # fmt: skip
    assert cli("label", run, corpus, f"--output={out}").returncode == 0
    assert len(files(out)) == 60


def copy_context_of(act: Callable[[], None]) -> Callable[[], None]:
    """``act`` for a thread, which else would not know of the test server."""
    return partial(copy_context().run, act)


def cancel_running() -> None:
    running = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])))
    with get_client(sync_client=True) as client:
        (found,) = client.read_flow_runs(flow_run_filter=running)
    cancel(found.id)


def test_a_pool_without_a_server_is_refused(cli: Cli, run: Path, corpus: Path, tmp_path: Path) -> None:
    pool = asked(run, corpus, tmp_path / "out", runner="pool", deployment="boxes")
    for url, message in ((None, "PREFECT_API_URL names none"), ("http://127.0.0.1:9/api", "no Prefect server answers")):
        with temporary_settings({PREFECT_API_URL: url}):
            with pytest.raises(InputError, match=rf"{message}.*`listflow server`"):
                label_pool.check_pool(pool)
            refused = cli(
                "label", run, corpus, "--runner=pool", "--pool-deployment=boxes", f"--output={tmp_path / 'out'}"
            )
        assert refused.returncode == 2
        assert message in refused.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense"])
def test_a_dask_scheduler_that_is_away_is_refused(
    cli: Cli, run: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr("listflow.flows.labelling.runners.SCHEDULER_SECONDS", 0.5)
    said = f"no dask scheduler answers at {address}; start it, or correct --address."
    refused = cli("label", run, corpus, "--runner=dask", f"--address={address}", f"--output={tmp_path / 'out'}")
    assert (refused.returncode, refused.stderr) == (2, f"listflow: {said}\n")
    with pytest.raises(InputError, match=said):
        label_corpus(asked(run, corpus, tmp_path / "out", runner="dask", address=address))
    assert not (tmp_path / "out").exists()


def test_the_command_refuses_bad_input(cli: Cli, run: Path, corpus: Path, tmp_path: Path) -> None:
    plain_file = write_jsonl(tmp_path / "plain.jsonl", sentences(3, 1, labelled=False))
    for arguments, message in (
        ((run, plain_file), "is no corpus"),
        ((tmp_path, corpus), "no finished model"),
        (
            (run, corpus, "--runner=pool", "--pool-deployment=nowhere"),
            "has no deployment listflow-label-shards/nowhere",
        ),
    ):
        refused = cli("label", *arguments, f"--output={tmp_path / 'out'}")
        assert refused.returncode == 2, refused.stderr
        assert message in refused.stderr
    assert not (tmp_path / "out").exists()
