"""Draws docs/schedule.png from the presets: the phases and the learning rate of a whole run, K = 30."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from listflow.pipeline.run.presets import build_config

K = 30
COLOURS = {"labelled": "#4477aa", "warm-up": "#ccbb44", "reweighted": "#228833", "labelled tail": "#66ccee"}


def phases(preset: str) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """(teacher phases, phases of one round), each (name, steps)."""
    config = build_config(preset)
    student, warm = config.student, round(config.student.warmup * config.student.steps)
    tail = student.tail_epochs * -(-K // student.tail_batch)
    teacher = config.teacher.epochs * -(-K // config.teacher.batch)
    return [("labelled", teacher)], [
        ("warm-up", warm), ("reweighted", student.steps - warm), ("labelled tail", tail),
    ]  # fmt: skip


def draw(path: Path) -> None:
    """One row per preset: round 0, then six rounds."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots(2, 1, sharex=False)
    for axis, preset in zip(axes, ("fast", "released"), strict=True):
        config, start = build_config(preset), 0
        teacher, student = phases(preset)
        for part in (teacher, *[student] * config.rounds.count):
            length = sum(steps for _, steps in part)
            rate = config.teacher.learning_rate if part is teacher else config.student.learning_rate
            axis.plot([start, start + length], [rate / config.student.learning_rate, 0], color="black", lw=1)
            for name, steps in part:
                axis.axvspan(start, start + steps, color=COLOURS[name], alpha=0.6, lw=0)
                start += steps
        axis.set(xlim=(0, start), ylim=(0, 1.05), ylabel=f"{preset}\nlearning rate\n(share of student's)")
    axes[-1].set_xlabel("optimiser steps; a teacher labels once, then a fresh student starts, at each jump of the line")
    handles = [axes[0].axvspan(0, 0, color=colour, alpha=0.6, label=name) for name, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(path, dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    draw(Path(__file__).with_name("schedule.png"))
