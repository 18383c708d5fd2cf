"""Runs one configuration to its end while killing it with SIGKILL at random moments; prints kills and seconds.

Imports everything once and forks a child for every attempt, so that an attempt costs no start-up. The parent
itself computes nothing.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import torch

from listflow.pipeline.results import plots
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.training import rounds  # noqa: F401  (imported once, before the forks)


def attempt(overlay: dict[str, object], delay: float | None) -> bool:
    """Whether a child finished the run; with a ``delay`` it is killed that many seconds after its start."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        if delay is not None:
            timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()
        self_train(build_config("fast", overlay))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit("the run failed by itself")
    return os.WIFEXITED(status)


def main() -> None:
    plain, killed = (json.loads(text) for text in sys.argv[1:3])
    plots.draw_plots = lambda report: ()  # half the time of an attempt, for pictures that nobody sees
    wanted, generator = int(sys.argv[3]), random.Random(int(sys.argv[4]))
    began = time.monotonic()
    attempt(plain, None)
    seconds = time.monotonic() - began
    kills = 0
    while kills < wanted:
        if attempt(killed, generator.uniform(0.05, 0.5) * seconds):
            # Finished before its kill: everything from round 1 on has to be made and interrupted again.
            (Path(killed["run_dir"]) / "round-01" / "student" / "manifest.json").unlink()
        else:
            kills += 1
    attempt(killed, None)
    print(json.dumps({"kills": kills, "seconds": seconds}))


main()
