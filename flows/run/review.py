"""The pause in which a person corrects contested rows: in the form of the Prefect UI or by a file, the first counts.

What they see is the same rows above the form and as an artifact.
"""

import csv
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path
from threading import Event, Thread
from uuid import UUID, uuid4

from httpx import HTTPError
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException
from prefect.flow_runs import pause_flow_run, resume_flow_run
from prefect.input import RunInput
from prefect.logging import get_run_logger
from prefect.states import Running
from pydantic import Field

from listflow.data.errors import InputError
from listflow.data.files import short
from listflow.flows.run.cancellation import RunCancelled, heeded_run, is_cancelled
from listflow.flows.server.client import RETRIES, if_it_answers
from listflow.pipeline.run.run import Progress, Run
from listflow.pipeline.storage.checkpoint import write_json
from listflow.pipeline.storage.markdown import code
from listflow.pipeline.storage.review import (
    CSV,
    WAITING,
    Asked,
    Reviewed,
    check_answers,
    conclude,
    parse_answers,
    read_reviewed,
    utc,
)
from listflow.pipeline.training.review import ask

REVIEW = "list-review"
SHOWN_ROWS, SHOWN_TEXT = 100, 300
SECONDS_BETWEEN_LOOKS = 2
# A pause that Prefect itself ends fails the flow run, so this module ends it long before, by the same clock: a machine
# may sleep in between.
MARGIN_SECONDS = 30 * 86_400


class Corrections(RunInput):
    """What the form asks for."""

    corrections: str = ""
    name: str = Field("", max_length=200, description="who answers, for the report")


def review(run: Run, number: int) -> None:
    """Waits until the review of a round has ended, if the round asks for one and it is open."""
    asked = ask(run, number)
    if asked is None or read_reviewed(run.folder, number) is not None:
        return
    _show(asked, run.folder)
    minutes = run.config.review.timeout
    if not minutes:
        _say(run, number, f"round {number} asks about {len(asked.rows)} rows: listflow review {short(run.folder)}")
        return
    ended = _answered(run, asked, minutes)
    if ended.unanswered:
        _say(run, number, f"the run goes on without a review of round {number}: {ended.unanswered}")
    else:
        _say(run, number, f"{len(ended.rows)} rows of round {number} are labelled{_whose(ended)}")


def form_text(asked: Asked, wrong: str) -> str:
    """What stands above the form: why it is shown again, if it is, what to write, and the rows."""
    lines = [f"**Not taken:** {code(wrong)}", ""] if wrong else []
    lines += [f"Which of these rows has the teacher of round {asked.round} labelled wrongly? {_labels(asked)}"]
    lines += [
        "Write a label behind the comma where you know it, in *Corrections*; a line left as it is is no answer.",
        "",
    ]
    return "\n".join([*lines, *_rows(asked)])


def lines_to_fill_in(asked: Asked) -> str:
    """A line for each shown row that lacks only its label: a line that is left so is no answer."""
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows((row.row_id, "") for row in asked.rows[:SHOWN_ROWS])
    return lines.getvalue()


def _answered(run: Run, asked: Asked, minutes: float) -> Reviewed:
    """How the review ends. Asks again, with the reason, after a wrong answer in the form."""
    deadline, until = time.time() + 60 * minutes, utc(minutes)
    words = f"wait until {until} for a review; look at it: listflow review {short(run.folder)}"
    _say(run, asked.round, words)
    write_json(asked.folder / WAITING, {"format": 1, "until": until})
    written, wrong = lines_to_fill_in(asked), ""
    try:
        while True:
            with _released(run, asked, minutes, deadline):
                answer = _paused(asked, written, wrong, minutes)
            ended = read_reviewed(run.folder, asked.round)
            if ended is not None:
                return ended
            try:
                rows = check_answers(asked, parse_answers(answer.corrections))
            except InputError as error:
                written, wrong = answer.corrections, str(error)
                _say(run, asked.round, f"asked again: {wrong}")
            else:
                return conclude(asked, rows, answer.name.strip())
    finally:
        (asked.folder / WAITING).unlink(missing_ok=True)


def _paused(asked: Asked, written: str, wrong: str, minutes: float) -> Corrections:
    """What was written into the form; nothing where the pause ended another way."""
    form = Corrections.with_initial_data(description=form_text(asked, wrong), corrections=written)
    timeout = int(60 * minutes) + MARGIN_SECONDS
    # By number, as Prefect would call them, a flow run that is retried would not wait: that pause was made before.
    own = uuid4().hex
    return pause_flow_run(wait_for_input=form, timeout=timeout, poll_interval=SECONDS_BETWEEN_LOOKS, key=own)


@contextmanager
def _released(run: Run, asked: Asked, minutes: float, deadline: float) -> Iterator[None]:
    """Inside the block a thread ends the pause: when a file answers, when time is up, or when the run is cancelled."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    flow_run, heeded, over, cancelled = context.flow_run.id, heeded_run(), Event(), Event()

    def watch() -> None:
        while not over.wait(SECONDS_BETWEEN_LOOKS / 2):
            if time.time() > deadline:
                conclude(asked, (), unanswered=f"nobody answered within {minutes:g} minutes")
            if read_reviewed(run.folder, asked.round) is not None:
                _resume(flow_run)
            elif heeded and is_cancelled(heeded):
                cancelled.set()
                _wake(heeded)

    watcher = Thread(target=copy_context().run, args=(watch,), daemon=True)
    watcher.start()
    try:
        yield
    except Exception:
        # A pause that is woken up finds no answer in its form.
        if not cancelled.is_set():
            raise
    finally:
        over.set()
        watcher.join()
    if cancelled.is_set():
        raise RunCancelled


def _resume(flow_run: UUID) -> None:
    """Ends the pause, unless it has not begun or has ended; a server that is away is asked again later."""
    try:
        resume_flow_run(flow_run, run_input={})
    except (PrefectException, HTTPError, RuntimeError):
        return


def _wake(flow_run: UUID) -> None:
    """Ends the pause of a cancelled flow run, which would otherwise look for its answer until time is up."""
    with suppress(PrefectException, HTTPError), get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run, Running(), force=True)


def _whose(ended: Reviewed) -> str:
    return f" by {ended.by}" if ended.by else ""


def _say(run: Run, number: int, words: str) -> None:
    """In the log of the flow run, and to whoever watches the run."""
    get_run_logger().info(words)
    run.notify(Progress(number, words, 0, 1))


def _show(asked: Asked, run: Path) -> None:
    """The review queue as an artifact, and where to answer."""
    with if_it_answers(RETRIES):
        words = f"Rows that round {asked.round} asks a person about"
        create_markdown_artifact("\n".join(_page(asked, run)), REVIEW, words)


def _page(asked: Asked, run: Path) -> Iterator[str]:
    yield f"# Round {asked.round}: {len(asked.rows)} contested rows"
    yield ""
    yield "Answer with *Resume* on the flow run, or fill in the column `label` of the file and run"
    yield code(f"listflow review {run} --file {asked.folder / CSV}")
    yield ""
    yield _labels(asked)
    yield ""
    yield from _rows(asked)


def _labels(asked: Asked) -> str:
    return f"Labels: {', '.join(code(label) for label in asked.labels)}."


def _rows(asked: Asked) -> Iterator[str]:
    """A list: a narrow form breaks its lines, and would cut the texts of a table."""
    for row in asked.rows[:SHOWN_ROWS]:
        yield f"- {code(row.row_id)} is {code(row.label)} ({code(row.why)}): {code(row.shown(SHOWN_TEXT))}"
    if len(asked.rows) > SHOWN_ROWS:
        yield f"\nand {len(asked.rows) - SHOWN_ROWS} more, in {code(str(asked.folder / CSV))}"
