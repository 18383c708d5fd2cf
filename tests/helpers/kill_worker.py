"""Runs one configuration to its end while killing it with SIGKILL at random moments, for a process that is apart.

It forks a child for every attempt, and computes nothing itself.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import torch

from listflow.pipeline.results import plots
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train


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
        raise AssertionError("the run failed by itself")
    return os.WIFEXITED(status)


def run_with_kills(plain: dict[str, object], killed: dict[str, object], wanted: int, seed: int) -> int:
    """How often ``killed`` was killed until it was done, ``wanted`` times; ``plain`` says how long a run takes."""
    plots.draw_plots = lambda report: ()  # half the time of an attempt, for pictures that nobody sees
    generator, began = random.Random(seed), time.monotonic()
    attempt(plain, None)
    seconds = time.monotonic() - began
    kills = 0
    while kills < wanted:
        if attempt(killed, generator.uniform(0.05, 0.5) * seconds):
            # Finished before its kill: everything from round 1 on has to be made and interrupted again.
            (Path(str(killed["run_dir"])) / "round-01" / "student" / "manifest.json").unlink()
        else:
            kills += 1
    attempt(killed, None)
    return kills
