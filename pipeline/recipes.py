"""How the configuration makes a training: the teacher's steps, and those of a round's student."""

from __future__ import annotations

from pipeline.run import Run
from pipeline.train import Recipe


def teacher_recipe(run: Run, rows: int, purpose: str = "train") -> Recipe:
    """How a teacher is trained on ``rows`` labelled rows."""
    config = run.config.teacher
    batch = min(config.batch, rows)
    return Recipe(
        phases=(("labelled", config.epochs * -(-rows // batch)),), learning_rate=config.learning_rate, batch=batch,
        labelled_batch=batch, clip=run.config.clip, dropout=run.config.dropout, seed=run.seed(0, purpose),
    )  # fmt: skip


def student_recipe(run: Run, number: int, drawn: int) -> Recipe:
    """How the student of a round is trained on ``drawn`` pseudo-labelled rows."""
    config, reweight = run.config.student, run.config.reweight
    warm = round(config.warmup * config.steps)
    tail = config.tail_epochs * -(-len(run.gold) // config.tail_batch)
    return Recipe(
        phases=(("warmup", warm), ("reweighted", config.steps - warm), ("tail", tail)),
        learning_rate=config.learning_rate, batch=min(config.batch, drawn), labelled_batch=config.tail_batch,
        cutoff=config.cutoff,
        meta_batch=reweight.batch, engine=reweight.engine, eps=reweight.eps, confidence=run.config.pseudo.confidence,
        clip=run.config.clip, dropout=run.config.dropout, seed=run.seed(number, "train"),
    )  # fmt: skip
