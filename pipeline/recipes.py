"""How the configuration makes a training: the teacher's steps, and those of a round's student."""

from __future__ import annotations

from listflow.pipeline.pseudo_tokens import PTuning
from listflow.pipeline.run.run import Run
from listflow.pipeline.stages.config import pseudo_tokens
from listflow.pipeline.training.auxiliary import Auxiliary
from listflow.pipeline.training.trainer import Recipe


def teacher_recipe(run: Run, rows: int, purpose: str = "train") -> Recipe:
    """How a teacher is trained on ``rows`` labelled rows."""
    config = run.config.teacher
    batch = min(config.batch, rows)
    return Recipe(
        phases=(("labelled", config.epochs * -(-rows // batch)),), learning_rate=config.learning_rate, batch=batch,
        labelled_batch=batch, clip=run.config.clip, dropout=run.config.dropout, seed=run.seed(0, purpose),
        auxiliary=auxiliary_of(run),
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
        auxiliary=auxiliary_of(run),
    )  # fmt: skip


def auxiliary_of(run: Run) -> Auxiliary | None:
    """The masked-LM loss that the stage asks for. Words that the template has are spared wherever they stand.

    In the template they are the same in every text, so that hiding them would break the prompt and teach nothing.
    """
    stage, tokenizer = pseudo_tokens(run.config.stage), run.prompt.tokenizer
    if not isinstance(stage, PTuning) or not stage.aux_weight:
        return None
    template = (token for ids in run.prompt.fixed.values() for token in ids if token >= 0)
    spared = tuple(sorted({*tokenizer.all_special_ids, *template}))
    return Auxiliary(
        stage.aux_probability, stage.aux_weight, tokenizer.mask_token_id,
        min(len(tokenizer), len(run.backbone.word_rows)), spared,
    )  # fmt: skip
