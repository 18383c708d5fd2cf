"""Going on from a run again and again: what comes next, what is deployed, what is refused."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from commands import Cli, refused
from kept import keep, put_back
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import State
from prefect.client.schemas.sorting import TaskRunSort
from tiny import foreign_sentences, sentences, tiny_overlay, write_jsonl

from listflow.data.corpora.ingest import ingest
from listflow.data.errors import InputError
from listflow.data.task import Columns
from listflow.flows.run.continuation import go_on, has_news
from listflow.flows.run.deployment import Wanted, deployment_of, serve_run
from listflow.pipeline.run.lineage import lineage, next_of
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.checkpoint import read_json, single_writer
from listflow.pipeline.training.rounds import prompt_tune

pytest_plugins = ["flow_fixtures"]


@pytest.fixture(scope="module")
def home(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run on a corpus of 60 rows."""
    home = tmp_path_factory.mktemp("lineage") / "home"
    grow(home / "corpora" / "tickets", 60, 2)
    overlay = tiny_overlay(tiny_files | {"unlabelled": home / "corpora" / "tickets"}, home / "runs" / "tickets")
    self_train(build_config("fast", overlay, {"rounds": {"count": 1}}))
    return keep(home)


@pytest.fixture
def first(home: Path) -> Path:
    """The finished run, in its place, and nothing beside it that a test before this one has left."""
    return put_back(home) / "runs" / "tickets"


@pytest.fixture
def corpus(home: Path) -> Path:
    return home / "corpora" / "tickets"


def grow(corpus: Path, count: int, seed: int, rows: list[dict[str, str]] | None = None) -> None:
    corpus.parent.mkdir(parents=True, exist_ok=True)
    more = write_jsonl(corpus.parent / "more.jsonl", rows or sentences(count, seed, labelled=False))
    ingest(corpus, [str(more)], Columns())


def test_a_lineage_goes_on_resumes_and_waits(first: Path, corpus: Path) -> None:
    grow(corpus, 20, 5)
    two = next_of(first)
    assert two.config is not None
    assert (two.words, two.config.run_dir) == ("continues tickets", f"{first}-002")
    assert two.config.rounds.promote == "gated"
    with open_run(two.config) as run:
        prompt_tune(run)
        assert next_of(first).words == "tickets-002 is running"
    again = next_of(first)
    assert again.words == "resumes tickets-002"
    assert again.config is not None
    self_train(again.config)
    assert next_of(first).words == "continues tickets-002"
    assert [status.folder.name for status in lineage(first)] == ["tickets", "tickets-002"]


def continue_into(before: Path, folder: Path) -> None:
    """As much of a continued run as a lineage looks at."""
    shutil.copytree(before, folder)
    record = read_json(folder / "config.json")
    record["config"]["continues"] = str(before)
    (folder / "config.json").write_text(json.dumps(record))


def test_a_manual_continuation_is_no_part_of_a_lineage(first: Path) -> None:
    for before, folder in (("", "-002"), ("-002", "-003"), ("", "-0a1b2c3d4e5f"), ("", "-123456789012")):
        continue_into(Path(f"{first}{before}"), Path(f"{first}{folder}"))
    assert [run.folder.name for run in lineage(first)] == ["tickets", "tickets-002", "tickets-003"]
    four = next_of(first)
    assert four.config is not None
    assert (four.words, four.config.run_dir) == ("continues tickets-003", f"{first}-004")


def test_a_lineage_takes_a_free_number(first: Path) -> None:
    Path(f"{first}-003", "of somebody else").mkdir(parents=True)
    Path(f"{first}-004", "inputs").mkdir(parents=True)  # what a run leaves that was killed before it was recorded
    four = next_of(first)
    assert four.config is not None
    assert (four.words, four.config.run_dir) == ("continues tickets", f"{first}-004")


def test_nothing_new_and_a_running_one_are_no_errors(server: None, first: Path, corpus: Path) -> None:
    state = go_on(str(first), return_state=True)
    assert state.is_completed()
    assert "no unlabelled row is new" in (state.message or "")
    assert name_of(state) == "tickets: nothing new"
    assert not Path(f"{first}-002").exists()
    with single_writer(first):
        state = go_on(str(first), return_state=True)
    assert state.message == name_of(state) == "tickets is running"


def test_the_flow_goes_on(drawn: None, server: None, first: Path, corpus: Path) -> None:
    grow(corpus, 20, 5)
    state = go_on(str(first), return_state=True)
    assert state.result()["run"] == f"{first}-002"  # type: ignore[index]
    assert name_of(state) == "tickets-002: +20 rows of more"
    assert "with the model of tickets" in Path(f"{first}-002", "report.html").read_text("utf-8")
    with get_client(sync_client=True) as client:
        pages = {found.key: found for found in client.read_latest_artifacts()}
    assert "on the earlier model" in pages["list-rounds"].data
    assert pages["list-rounds"].flow_run_id == state.state_details.flow_run_id
    assert "2 runs, each going on from the one before" in pages["list-lineage"].data


def test_whoever_opens_its_flow_run_sees_the_rounds(server: None, first: Path, corpus: Path) -> None:
    grow(corpus, 20, 9)  # as no other test: their task runs are in the cache of the server
    state = go_on(str(first), return_state=True)
    own = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    children = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(flow_run_filter=own, sort=TaskRunSort.EXPECTED_START_TIME_ASC)
        assert not client.read_flow_runs(flow_run_filter=children)
    assert [run.name for run in runs] == [
        "prompt-tune the teacher", "pseudo-label, round 1", "train prompt student, round 1", "judge, round 1",
        "publish",
    ]  # fmt: skip


def test_what_a_person_can_mend_is_the_one_sentence_of_a_failed_flow_run(
    server: None, first: Path, corpus: Path, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    grow(corpus, 20, 5)
    moved = tiny_files["labelled"].rename(tiny_files["labelled"].with_suffix(".away"))
    try:
        state = go_on(str(first), return_state=True)
    finally:
        moved.rename(tiny_files["labelled"])
    assert state.name == "Failed"
    assert str(state.message).startswith(f"{tiny_files['labelled']}: no such file")
    absent = go_on(str(tmp_path / "absent"), return_state=True)
    assert absent.name == "Failed"
    assert absent.message == (f"{tmp_path}/absent/config.json is missing; is {tmp_path}/absent the folder of a run?")


def name_of(state: State[Any]) -> str:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(state.state_details.flow_run_id).name  # type: ignore[arg-type]


def test_foreign_text_ends_each_scheduled_run_as_failed_until_it_is_asked_for(
    server: None, cli: Cli, first: Path, corpus: Path
) -> None:
    grow(corpus, 0, 0, foreign_sentences(30, 1))
    for _ in range(2):
        state = go_on(str(first), return_state=True)
        assert state.is_failed()
        assert "the new text looks foreign to tickets and is not trained on" in (state.message or "")
        assert not Path(f"{first}-002").exists()
        assert has_news(first)
    options = (f"--continue={first}", f"--run-dir={first}-002")
    refused(
        cli("run", *options), "looks foreign to tickets", "add `--set rounds.foreign=train` to `listflow run --cont"
    )
    done = cli("run", *options, "--set=rounds.foreign=train")
    assert done.returncode == 0, done.stderr
    assert "  warning  The new text has other words: " in done.stdout
    assert next_of(first).words == "continues tickets-002"


def test_an_interrupted_run_is_resumed_though_its_corpus_has_grown(server: None, first: Path, corpus: Path) -> None:
    grow(corpus, 20, 5)
    two = next_of(first)
    assert two.config is not None
    with open_run(two.config) as run:
        prompt_tune(run)
    grow(corpus, 10, 6)
    assert next_of(first).words == "resumes tickets-002"
    assert go_on(str(first))["run"] == f"{first}-002"  # type: ignore[index]
    three = next_of(first)
    assert (three.words, three.config is not None) == ("continues tickets-002", True)
    with open_run(three.config or two.config) as run:
        assert any("10 of 90 unlabelled rows are new since tickets-002" in notice for notice in run.notices)


def test_a_finished_run_says_what_its_corpus_has_got_since(cli: Cli, first: Path, corpus: Path) -> None:
    same = cli("resume", first)
    assert "ingested since" not in same.stdout
    grow(corpus, 20, 5)
    told = cli("resume", first)
    assert f"20 rows ingested since this run began; learn from what is new with: listflow run --continue {first}" in (
        told.stdout
    )


def test_what_is_deployed(first: Path) -> None:
    found = deployment_of(Wanted(first, None, 2.5, ("tickets",), "weekly"))
    assert found["interval"] == timedelta(hours=2.5)
    assert found["parameters"] == {"run": str(first)}
    assert found["concurrency_limit"].limit == 1
    (trigger,) = found["triggers"]
    assert trigger.match.root == {"prefect.resource.id": "listflow.corpus.tickets"}


@pytest.mark.parametrize(
    ("cron", "hours", "corpora", "message"),
    [
        ("every monday", None, (), "--cron 'every monday' is no schedule"),
        (None, -1.0, (), "is no time between runs"),
        ("0 6 * * *", 1.0, (), "are two schedules"),
        (None, None, (), "nothing would ever start a run"),
        (None, None, ("../x",), "is no name of a corpus"),
        (None, None, ("other",), "tickets does not read a corpus 'other', but tickets; correct --corpus"),
    ],
)
def test_what_could_never_run_is_refused(
    first: Path, cron: str | None, hours: float | None, corpora: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        deployment_of(Wanted(first, cron, hours, corpora, "name"))


def test_a_corpus_that_is_gone_is_refused(first: Path, corpus: Path) -> None:
    corpus.rename(corpus.with_name("away"))
    with pytest.raises(InputError, match="tickets holds no corpus; make one with `listflow ingest tickets FILE`"):
        deployment_of(Wanted(first, None, None, ("tickets",), "name"))


def test_serve_looks_once_for_what_came_before_it(first: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Runner:
        def __init__(self, **options: Any) -> None: ...

        def add_flow(self, *flow: Any, **options: Any) -> None:
            told.append("registered")

        async def start(self) -> None:
            told.append("started")

    monkeypatch.setattr("listflow.flows.run.deployment.Serving", Runner)
    monkeypatch.setattr("listflow.flows.run.deployment.check_server", lambda: None)
    monkeypatch.setattr("listflow.flows.run.deployment.run_deployment", lambda name, timeout: told.append(name))
    by_corpus, by_time = (Wanted(first, *rest, "weekly") for rest in ((None, None, ("tickets",)), (None, 2.5, ())))
    serve_run(by_corpus, told.append)
    said = "serves listflow-continue/weekly, until it is stopped"
    assert told == ["registered", "registered", said, "started"]
    grow(corpus, 20, 5)
    for wanted, run in ((by_corpus, ["listflow-continue/weekly"]), (by_time, [])):
        told.clear()
        serve_run(wanted, told.append)
        assert told == ["registered", "registered", *run, said, "started"]


def test_what_goes_on_has_news(first: Path, corpus: Path, tiny_files: dict[str, Path]) -> None:
    assert not has_news(first)
    grow(corpus, 20, 5)
    assert has_news(first)
    with single_writer(first):
        assert not has_news(first)
    moved = tiny_files["labelled"].rename(tiny_files["labelled"].with_suffix(".away"))
    try:
        assert has_news(first)  # its run says what is wrong
    finally:
        moved.rename(tiny_files["labelled"])


def test_the_command_line_goes_on_too(
    cli: Cli, first: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = cli("run", f"--continue={first}", f"--run-dir={tmp_path / 'two'}")
    assert none.returncode == 2
    assert "no unlabelled row is new since" in none.stderr
    grow(corpus, 20, 5)
    done = cli("run", f"--continue={first}", f"--run-dir={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    assert "the lineage, the oldest first" in done.stdout
    assert "tickets " in cli("status", tmp_path / "two").stdout.partition("the lineage, the oldest first")[2]
    report = read_json(tmp_path / "two" / "report.json")
    assert "20 of 80 unlabelled rows are new since tickets, which goes on." in report["notices"]
    monkeypatch.setattr("listflow.flows.cli.results.RUNS", tmp_path)
    report["lineage"] |= {"error": None}
    for step, accuracy in zip(report["lineage"]["steps"], (0.9, 0.4), strict=True):
        step["accuracy"] = accuracy
    (tmp_path / "two" / "report.json").write_text(json.dumps(report))
    assert "slides, 50.0 points below tickets" in cli("status").stdout
    for command in ("status", "report", "resume"):
        told = cli(command, tmp_path / "two").stdout
        assert "  warning  The lineage slides: 40.0 % on the 20 test rows, 50.0 points below the 90.0 % of tic" in told
    assert json.loads(cli("status", tmp_path / "two", "--json").stdout)[0]["lineage"]["steps"][0]["accuracy"] == 0.9


def test_what_cannot_go_on_is_one_sentence(cli: Cli, first: Path, corpus: Path, tmp_path: Path) -> None:
    grow(corpus, 20, 5)
    options = ("run", f"--continue={first}", f"--run-dir={tmp_path / 'two'}")
    damaged = first.parent / "damaged"
    shutil.copytree(first, damaged)
    (damaged / "report.json").write_text("{")
    refused(cli("report", damaged), "report.json")
    refused(cli("status", damaged), "report.json")
    unfinished = first.parent / "unfinished"
    shutil.copytree(first, unfinished)
    shutil.rmtree(unfinished / "final")
    refused(cli("run", f"--continue={unfinished}"), "is no finished run to continue; finish it with `listflow resume")
    refused(cli(*options, f"--unlabelled={tmp_path / 'nothing'}"), "nothing: no such file")
    away = corpus.rename(corpus.with_name("away"))
    refused(cli(*options), "tickets: no such file")
    assert not (tmp_path / "two").exists()
    away.rename(corpus)
    done = cli("run", f"--continue={damaged}", f"--run-dir={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    assert "What damaged reached, and any run before it, is not known here." in done.stdout
