"""Training that survives a kill: a step checkpoint now and then, taken up where it was left."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from listflow.data.errors import InputError
from listflow.pipeline.run.run import Progress, Run
from listflow.pipeline.storage.checkpoint import load_checked, save_checked
from listflow.pipeline.training.trainer import State, Tick, Trainer
from listflow.pipeline.undisturbed import undisturbed


def train_resumably(run: Run, number: int, trainer: Trainer, made_from: str) -> State:
    """All steps of ``trainer``, from its last step checkpoint if one of the same recipe and inputs is there.

    Whatever stops it but a kill leaves a checkpoint of the last whole step. It stays until ``forget_steps``.
    """
    key = hashlib.sha256(f"{trainer.recipe} {made_from}".encode()).hexdigest()[:12]
    path = run.round_folder(number) / f"{key}.step"
    path.parent.mkdir(parents=True, exist_ok=True)
    forget_steps(run, number, but=path)
    if path.exists():
        # A damaged one costs time, never the run.
        with suppress(InputError):
            trainer.restore(load_checked(path))
    began = trainer.state.step
    try:
        return trainer.run(_saving(run, number, trainer, path))
    except BaseException:
        if trainer.state.step > began:
            # What stopped the training is what should be told. The signal that a cancelled run gets besides can wait.
            with undisturbed(), suppress(Exception):
                save_checked(path, trainer.snapshot())
        raise


def forget_steps(run: Run, number: int, but: Path | None = None) -> None:
    """Removes the step checkpoints of a round, whose model is kept now."""
    for stale in run.round_folder(number).glob("*.step*"):
        if stale != but:
            stale.unlink()


def _saving(run: Run, number: int, trainer: Trainer, path: Path) -> Callable[[Tick], None]:
    """Tells of every step, and saves one when enough time has gone by."""
    saved = time.monotonic()

    def on_step(tick: Tick) -> None:
        nonlocal saved
        run.notify(Progress(number, tick.phase, tick.step, tick.steps, tick.loss))
        if time.monotonic() - saved >= run.config.checkpoint_seconds:
            save_checked(path, trainer.snapshot())
            saved = time.monotonic()

    return on_step
