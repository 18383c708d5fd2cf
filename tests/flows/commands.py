"""How tests start the command line, and what they get back."""

import subprocess
import sys
from collections.abc import Callable

COMMAND = (sys.executable, "-c", "from flows.cli import main; main()")
Result = subprocess.CompletedProcess[str]
Cli = Callable[..., Result]
