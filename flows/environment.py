"""What Prefect reads from the environment when it is imported; so this comes first and imports nothing of it."""

from __future__ import annotations

import os

ALWAYS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
}
# The console only: the server still gets every line. Also for the temporary server, whose complaints about a
# locked database go to the same terminal and concern nobody, as its clients try again.
QUIET = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def prepare(verbose: bool = False) -> None:
    """No analytics ever, and no chatter unless ``verbose``. What the user has set himself stays."""
    for name, value in (ALWAYS if verbose else ALWAYS | QUIET).items():
        os.environ.setdefault(name, value)
