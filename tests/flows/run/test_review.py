"""A run that asks: answered in the form, answered by a file, answered wrongly first, and not answered."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from commands import COMMAND, Cli, cancel
from tiny import tiny_overlay

from listflow.flows.run.review import form_text, lines_to_fill_in
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.storage.review import (
    Asked,
    Contested,
    Reviewed,
    answer_review,
    parse_answers,
    read_answers,
    read_asked,
    read_reviewed,
    waits_until,
)

pytest_plugins = ["flow_fixtures"]


@pytest.fixture
def config(server: None, tiny_files: dict[str, Path], tmp_path: Path) -> RunConfig:
    review = {"rows": 5, "timeout": 3}
    return build_config("fast", tiny_overlay(tiny_files, tmp_path / "run"), {"review": review})


def run_flow(
    config: RunConfig, meanwhile: Callable[[Path], None], within: bool = False, pauses: frozenset[str] = frozenset()
) -> Reviewed:
    """How the review of round 1 ended in a flow run during which ``meanwhile`` ran in a thread of its own.

    ``within`` another flow, as runs that a schedule starts are; one that was begun before and had ``pauses`` then.
    """
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import FlowRunPolicy
    from prefect.runtime import flow_run

    from listflow.flows.run.self_training import self_train, train

    @flow(name="outer")
    def outer() -> None:
        with get_client(sync_client=True) as client:
            client.update_flow_run(flow_run.id, empirical_policy=FlowRunPolicy(pause_keys=set(pauses)))
        train(config)

    folder = Path(str(config.run_dir))
    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(copy_context().run, meanwhile, folder)
        outer() if within else self_train(config)
        thread.result(60)
    ended = read_reviewed(folder, 1)
    assert ended is not None
    return ended


def eventually(find: Callable[[], Any]) -> Any:
    """What ``find`` finds, as soon as it finds something."""
    for _ in range(1800):
        if found := find():
            return found
        time.sleep(0.1)
    raise AssertionError("waited for three minutes")


def paused_run(after: int = 0) -> Any:
    """The flow run that is paused for the time ``after`` others, once it is."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType

    paused = FlowRunFilterStateType(any_=[StateType.PAUSED])
    wanted = FlowRunFilter(state=FlowRunFilterState(type=paused))

    def find() -> Any:
        with get_client(sync_client=True) as client:
            runs = client.read_flow_runs(flow_run_filter=wanted)
        return next((run for run in runs if len(run.empirical_policy.pause_keys or ()) > after), None)

    return eventually(find)


def answer_form(folder: Path, text: str, after: int = 0) -> None:
    from prefect.flow_runs import resume_flow_run

    run = paused_run(after)
    eventually(lambda: read_asked(folder, 1))
    time.sleep(1)  # the form follows its pause
    resume_flow_run(run.id, run_input={"corrections": text, "name": "ann"})


def first_rows(folder: Path, count: int) -> list[str]:
    asked = eventually(lambda: read_asked(folder, 1))
    return [row.row_id for row in asked.rows[:count]]


def test_the_form_asks_again_after_a_wrong_answer(config: RunConfig) -> None:
    def meanwhile(folder: Path) -> None:
        answer_form(folder, "nobody:1,positive")
        assert waits_until(folder, 1)
        one, two = first_rows(folder, 2)
        answer_form(folder, f"{one},positive\n{two},negative", after=1)

    ended = run_flow(config, meanwhile)
    assert (ended.by, ended.unanswered) == ("ann", "")
    folder = Path(str(config.run_dir))
    assert {row.row_id: row.label for row in ended.rows} == dict(
        zip(first_rows(folder, 2), ("positive", "negative"), strict=True)
    )
    assert waits_until(folder, 1) is None
    notices = json.loads((folder / "report.json").read_text())["notices"]
    assert any(notice.startswith("2 of 5 contested rows of round 1 were labelled by ann") for notice in notices)


def test_a_file_answers_a_waiting_run(config: RunConfig, cli: Cli, tmp_path: Path) -> None:

    def meanwhile(folder: Path) -> None:
        paused_run()
        answers = tmp_path / "answers.csv"
        answers.write_text(f"row_id,label\n{first_rows(folder, 1)[0]},negative\n")
        answer_review(folder, read_answers(str(answers)), "bob")

    ended = run_flow(config, meanwhile, within=True)
    assert (ended.by, len(ended.rows)) == ("bob", 1)


def test_a_flow_run_that_was_killed_while_it_waited_waits_again_when_it_is_retried(config: RunConfig) -> None:
    def meanwhile(folder: Path) -> None:
        answer_form(folder, f"{first_rows(folder, 1)[0]},positive", after=1)

    ended = run_flow(config, meanwhile, within=True, pauses=frozenset({"1"}))
    assert (ended.by, len(ended.rows)) == ("ann", 1)


def test_nobody_answers_and_the_run_goes_on(config: RunConfig, cli: Cli) -> None:
    review = config.review.model_copy(update={"timeout": 0.05})
    ended = run_flow(config.model_copy(update={"review": review}), lambda folder: None)
    assert ended.unanswered == "nobody answered within 0.05 minutes"
    folder = Path(str(config.run_dir))
    assert "nobody answered" in (folder / "report.html").read_text()
    done = cli("review", folder)
    assert done.returncode == 2
    assert "is closed, as nobody answered" in done.stderr


def test_a_cancelled_run_waits_no_longer(config: RunConfig, tmp_path: Path) -> None:
    from listflow.flows.run.cancellation import Stopped

    began = time.monotonic()
    with pytest.raises(Stopped):
        run_flow(config, lambda folder: cancel(paused_run().id))
    assert time.monotonic() - began < 60 * config.review.timeout
    folder = Path(str(config.run_dir))
    assert read_reviewed(folder, 1) is None
    assert waits_until(folder, 1) is None

    def answer(folder: Path) -> None:
        eventually(lambda: waits_until(folder, 1))
        answers = tmp_path / "answers.csv"
        answers.write_text(f"row_id,label\n{first_rows(folder, 1)[0]},negative\n")
        answer_review(folder, read_answers(str(answers)), "bob")

    assert run_flow(config, answer).by == "bob"


@pytest.mark.long
def test_a_run_of_its_own_waits_again_after_ctrl_c_and_kill(
    tiny_files: dict[str, Path], asked: list[str], tmp_path: Path
) -> None:
    """With a temporary server that nobody else can reach: the file is the only way in."""
    folder, home = tmp_path / "run", {"PREFECT_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    outside = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")} | home

    def start(*arguments: str, out: str = "run.txt") -> subprocess.Popen[str]:
        with (tmp_path / out).open("w") as file:
            return subprocess.Popen([*COMMAND, *arguments], env=outside, stdout=file, stderr=file, text=True)

    def listflow(*arguments: str) -> tuple[int, str]:
        with start(*arguments, out="out.txt") as process:
            code = process.wait(100)
        return code, (tmp_path / "out.txt").read_text()

    process = start("run", *asked, f"--run-dir={folder}", "--set", "review.rows=5")
    for end, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        eventually(lambda: waits_until(folder, 1))
        time.sleep(3)
        words = listflow("status", str(folder))[1]
        assert "waits until" in words
        assert "for a review of round 1" in words
        process.send_signal(end)
        assert process.wait(60) == code
        assert "waits until" not in listflow("status", str(folder))[1]
        assert read_reviewed(folder, 1) is None
        (folder / "round-01" / "review" / "waiting.json").unlink(missing_ok=True)
        process = start("resume", str(folder))
    eventually(lambda: waits_until(folder, 1))
    code, words = listflow("review", str(folder))
    assert code == 0
    row_id = first_rows(folder, 1)[0]
    assert row_id in words
    (tmp_path / "answers.csv").write_text(f"row_id,label\n{row_id},neutral\n")
    code, words = listflow("review", str(folder), "--file", str(tmp_path / "answers.csv"))
    assert (code, "unknown label 'neutral'" in words, "Traceback" in words) == (2, True, False)
    (tmp_path / "answers.csv").write_text(f"row_id,label\n{row_id},negative\n")
    code, words = listflow("review", str(folder), "--file", str(tmp_path / "answers.csv"), "--by", "cy")
    assert (code, words.strip()) == (0, "1 row is labelled from round 2 on")
    assert process.wait(200) == 0
    assert any("by cy" in notice for notice in json.loads((folder / "report.json").read_text())["notices"])


def test_the_form_shows_rows_and_what_was_wrong() -> None:
    row = Contested("pool:3", 2, "so <i>good</i>", "or | bad", "bad", 0.5, "good", 1.0, "0.50 against 0.50")
    asked = Asked(Path("review"), 2, ("bad", "good"), (row,))
    lines = form_text(asked, "unknown `label`").splitlines()
    assert lines[0] == "**Not taken:** unknown \\`label\\`"
    assert lines[-1] == "- `pool:3` is `bad` (`0.50 against 0.50`): `so <i>good</i> / or | bad`"


def test_what_is_left_as_it_was_is_no_answer() -> None:
    rows = tuple(Contested(row_id, 0, "x", None, "a", 0.5, "b", 1.0, "") for row_id in ("p:1", "a,b:2"))
    text = lines_to_fill_in(Asked(Path("review"), 1, ("a", "b"), rows))
    assert text == 'p:1,\n"a,b:2",\n'
    assert list(parse_answers(text)) == []
    assert [answer.row_id for answer in parse_answers(text.replace('2",', '2",b'))] == ["a,b:2"]
