"""Continued masked-LM training of a backbone on any text: it learns a domain's words before a run.

``minilm`` gets another small update of some MB; any other backbone is trained whole. The folder holds
``adapt.json`` (what decides the outcome), ``work/`` until all is done, and then ``backbone/``.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from listflow.data.errors import InputError
from listflow.data.files import at_home
from listflow.data.rows import digest
from listflow.pipeline.backbone.masked_lm import Masked, Measure, mask_tokens, masked_loss, measure
from listflow.pipeline.method.sampling import epochs, generator_for
from listflow.pipeline.pretraining.learner import AdaptConfig, Learner, load_learner
from listflow.pipeline.pretraining.packing import Packed, pack
from listflow.pipeline.pretraining.steps import restore_steps, save_steps, warmed_rate
from listflow.pipeline.storage import checkpoint

RECORD, WORK, RESULT = "adapt.json", "work", "backbone"
MOST_HELD_OUT = 2000
BETAS, CLIP = (0.9, 0.98), 1.0


@dataclass(frozen=True)
class AdaptOutcome:
    """``path`` is what to pass as --backbone; ``tokens`` are the corpus's, ``seconds`` the last call's."""

    path: Path
    steps: int
    tokens: int
    before: Measure
    after: Measure
    seconds: float


@dataclass(frozen=True)
class AdaptTick:
    """One finished step, for whoever shows progress."""

    step: int
    steps: int
    loss: float


def adapt(
    base: str,
    sources: Sequence[str],
    out: Path,
    config: AdaptConfig | None = None,
    on_step: Callable[[AdaptTick], None] = lambda tick: None,
) -> AdaptOutcome:
    """Trains ``base`` on ``sources``; returns where the better backbone is, with held-out measures.

    base: minilm or minilm-2, a .safetensors update of them, a local folder, or a hub id.
    sources: .txt files with a paragraph a line, and what ``read_rows`` reads; never in memory.
    The same call again resumes, or returns the finished outcome; an interruption changes no byte of the
    result (CPU, same thread count). Raises InputError for a source or base that cannot be used, and for a
    folder that holds something else.
    """
    started, config = time.monotonic(), config or AdaptConfig()
    sources, out = [*map(at_home, sources)], Path(at_home(out))
    digests = _digests(sources)
    learner = load_learner(base, config)
    where = {"precision": learner.precision, "device": learner.backbone.device.type}
    resolved = where | {"rank": config.rank or learner.rank}
    asked = {"base": learner.backbone.checksum(), "sources": digests}
    facts = config.model_dump(mode="json") | resolved | asked
    _check_folder(out)
    with checkpoint.single_writer(out):
        _refuse_other(out, facts)
        if checkpoint.verified(out / RESULT) is None:
            texts = _Texts.open(sources, out / WORK, learner, config)
            checkpoint.write_json(out / RECORD, facts)
            before, after = _train(learner, texts, out / WORK, config, on_step)
            found: dict[str, Any] = {"tokens": texts.packed.tokens, "seconds": time.monotonic() - started}
            found |= {"before": asdict(before), "after": asdict(after)}
            with checkpoint.new_folder(out / RESULT, found) as folder:
                learner.write(folder)
        shutil.rmtree(out / WORK, ignore_errors=True)
    return _outcome(out / RESULT, learner.entry, config.steps)


def _digests(sources: Sequence[str]) -> list[str]:
    if not sources:
        raise InputError("no text is given; pass at least one file.")
    return [digest(source) for source in sources]


def _check_folder(out: Path) -> None:
    """Refuses a folder of something else: the result would replace what it may hold."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; choose a new folder.")
    if out.exists() and not (out / RECORD).exists() and {f.name for f in out.iterdir()} - {".lock", WORK}:
        raise InputError(f"{out} is not empty and holds no adaptation; choose a new folder.")


def _refuse_other(out: Path, facts: dict[str, Any]) -> None:
    if (out / RECORD).exists():
        found = checkpoint.read_json(out / RECORD)
        other = sorted(name for name in facts.keys() | found.keys() if facts.get(name) != found.get(name))
        if other:
            names = ", ".join(other)
            raise InputError(f"{out} holds an adaptation with another {names}; choose a new folder.")


def _train(
    learner: Learner, texts: _Texts, work: Path, config: AdaptConfig, on_step: Callable[[AdaptTick], None]
) -> tuple[Measure, Measure]:
    """The held-out measures before the first and after the last step; takes up the last checkpoint."""
    before = _measure_once(learner, texts, work / "before.json")
    parameters = learner.parameters()
    groups = [{"params": [p], "peak": learner.rates[name]} for name, p in parameters.items()]
    optimiser = torch.optim.AdamW(groups, betas=BETAS, weight_decay=0.0)
    order = epochs(len(texts.training), config.steps, config.batch, generator_for(config.seed, "order"))
    for step in range(restore_steps(work / "step.safetensors", parameters, optimiser), config.steps):
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * warmed_rate(step, config.steps, config.warmup)
        optimiser.zero_grad(set_to_none=True)
        batch = texts.batch(texts.training[order[step]], "mask", step)
        with learner.autocast():
            loss = masked_loss(learner.backbone, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters.values(), CLIP)
        optimiser.step()
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
            save_steps(work / "step.safetensors", step + 1, parameters, optimiser)
        on_step(AdaptTick(step + 1, config.steps, loss.item()))
    return before, _measure(learner, texts)


def _measure(learner: Learner, texts: _Texts) -> Measure:
    with learner.autocast():
        return measure(learner.backbone, texts.held_out_batches())


def _measure_once(learner: Learner, texts: _Texts, path: Path) -> Measure:
    if not path.exists():
        checkpoint.write_json(path, asdict(_measure(learner, texts)))
    return Measure(**checkpoint.read_json(path))


@dataclass(frozen=True)
class _Texts:
    """Packed sequences and their seeded division into two sets of row numbers."""

    packed: Packed
    training: np.ndarray
    held_out: np.ndarray
    learner: Learner
    config: AdaptConfig

    @classmethod
    def open(cls, sources: Sequence[str], work: Path, learner: Learner, config: AdaptConfig) -> _Texts:
        """Those of ``sources``, packed into ``work`` unless an earlier call has done that."""
        tokenizer, tokens = learner.backbone.tokenizer, work / "tokens.bin"
        work.mkdir(exist_ok=True)
        # Without a record nobody knows which texts a token file is from.
        if not (tokens.exists() and (work.parent / RECORD).exists()):
            pack(sources, config.columns, tokenizer, config.length, tokens)
        packed = Packed(tokens, tokenizer, config.length)
        order = generator_for(config.seed, "division").permutation(len(packed))
        aside = max(1, min(MOST_HELD_OUT, round(config.held_out * len(packed))))
        return cls(packed, order[:-aside], order[-aside:], learner, config)

    def batch(self, rows: np.ndarray, *purpose: str | int) -> Masked:
        """The sequences of ``rows`` with tokens hidden; which ones is drawn for this ``purpose`` alone."""
        rng = generator_for(self.config.seed, *purpose)
        ids = self.packed.sequences(rows)
        return mask_tokens(ids, self.learner.backbone.tokenizer, self.config.mask_share, rng)

    def held_out_batches(self) -> Iterator[Masked]:
        """All sequences that are measured on, hidden alike every time."""
        size = self.config.batch
        for start in range(0, len(self.held_out), size):
            yield self.batch(self.held_out[start : start + size], "held-out mask", start)


def _outcome(folder: Path, entry: str, steps: int) -> AdaptOutcome:
    found = checkpoint.read_json(folder / checkpoint.MANIFEST)
    before, after = Measure(**found["before"]), Measure(**found["after"])
    return AdaptOutcome(folder / entry, steps, found["tokens"], before, after, found["seconds"])
