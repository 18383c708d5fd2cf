"""Training that survives a kill: a step checkpoint now and then, taken up where it was left."""

from __future__ import annotations

import hashlib
import time

from data.errors import InputError
from pipeline.checkpoint import load_tensors, save_tensors
from pipeline.run import Progress, Run
from pipeline.train import State, Tick, Trainer


def train_resumably(run: Run, number: int, trainer: Trainer, made_from: str) -> State:
    """All steps of ``trainer``, from its last step checkpoint if one of the same recipe and inputs is there."""
    key = hashlib.sha256(f"{trainer.recipe} {made_from}".encode()).hexdigest()[:12]
    folder = run.round_folder(number)
    path = folder / f"{key}.step"
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.step"):
        if stale != path:
            stale.unlink()
    if path.exists():
        try:
            trainer.restore(load_tensors(path))
        except InputError:
            path.unlink()  # a damaged step checkpoint costs time, never the run
    saved = time.monotonic()

    def on_step(tick: Tick) -> None:
        nonlocal saved
        run.notify(Progress(number, tick.phase, tick.step, tick.steps, tick.loss))
        if tick.step < tick.steps and time.monotonic() - saved >= run.config.checkpoint_seconds:
            save_tensors(path, trainer.snapshot())
            saved = time.monotonic()

    state = trainer.run(on_step)
    path.unlink(missing_ok=True)
    return state
