"""Python reads this at its start where this folder is on its path.

So a benchmark sees how far a run is that it did not start itself, in a process of Prefect's own.
"""

import os
import sys

RUNS = ("prefect.engine", "spawn_main")  # what a worker and ``serve`` start

if "FAULTS_JOURNAL" in os.environ and any(name in " ".join(sys.orig_argv) for name in RUNS):
    from step_journal import keep_journal

    keep_journal()
