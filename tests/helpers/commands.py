"""How tests start the command line, and what they get back."""

import subprocess
import sys
from collections.abc import Callable

COMMAND = (sys.executable, "-c", "from listflow.flows.cli.main import main; main()")
Result = subprocess.CompletedProcess[str]
Cli = Callable[..., Result]


def cancel(flow_run: object) -> None:
    """As the button of the Prefect UI does."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run, Cancelling())  # type: ignore[arg-type]


def refused(result: Result, *words: str) -> None:
    """Exit code 2, one sentence on stderr with these words, no traceback."""
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("listflow: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
