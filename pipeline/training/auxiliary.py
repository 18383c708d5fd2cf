"""A masked-LM loss on the texts beside the loss of the labels, for pseudo tokens (Su Jianlin's variant of P-tuning).

    loss = class loss + weight * mean cross-entropy of the hidden words, over the whole vocabulary

Words are guessed by the backbone's own frozen masked-LM head, from texts whose label slot stays masked. Differences
to the original (kexue.fm 8295): only ordinary words are hidden, and the weight is explicit, where there all guesses
and the label share one mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from listflow.pipeline.backbone.batch import Batch, Encoded
from listflow.pipeline.backbone.masked_lm import Masked
from listflow.pipeline.model.classifier import Classifier

MASKED, KEPT = 0.8, 0.1  # of the chosen words; the others become a random word


@dataclass(frozen=True)
class Auxiliary:
    """How words are hidden, and what guessing them counts; ``spared`` ids, of ``vocabulary``, never are."""

    probability: float
    weight: float
    mask_id: int
    vocabulary: int
    spared: tuple[int, ...]


def auxiliary_term(model: Classifier, batch: Batch, auxiliary: Auxiliary, seed: int) -> Tensor | None:
    """weight * mean cross-entropy over the words of ``batch`` that ``seed`` hides; None where it hides none.

    A pass of its own: the class loss reads whole texts, and its last layer the mask alone, as without this term.
    """
    masked = hide(batch, auxiliary, torch.Generator().manual_seed(seed))
    if not len(masked.gold):
        return None
    device = next(model.parameters()).device
    states = model.states(replace(batch, ids=masked.ids).to(device))
    logits = model.word_logits(states[masked.chosen.to(device)])
    return auxiliary.weight * F.cross_entropy(logits, masked.gold.to(device))


def hide(batch: Batch, auxiliary: Auxiliary, generator: torch.Generator) -> Masked:
    """``batch`` (on the CPU) with words hidden: no pseudo tokens (negative ids), no padding, nothing that is spared."""
    ids = batch.ids
    ordinary = (ids >= 0) & batch.attention.bool() & ~torch.isin(ids, _tensor(auxiliary.spared))
    chosen = ordinary & (torch.rand(ids.shape, generator=generator) < auxiliary.probability)
    fate = torch.rand(ids.shape, generator=generator)
    words = _words(auxiliary)
    drawn = words[torch.randint(len(words), ids.shape, generator=generator)]
    hidden = torch.where(fate < MASKED, auxiliary.mask_id, torch.where(fate < MASKED + KEPT, ids, drawn))
    return Masked(torch.where(chosen, hidden, ids), chosen, ids[chosen])


def accompanied(batch: Batch, plain: Encoded, seed: int) -> Batch:
    """``batch`` with as many texts of ``plain`` beside it, or all of them if they are fewer."""
    drawn = np.random.default_rng(seed).choice(len(plain), min(len(batch), len(plain)), replace=False)
    return batch.join(plain.batch(drawn))


def _words(auxiliary: Auxiliary) -> Tensor:
    """The token ids that may stand in another's place."""
    every = torch.arange(auxiliary.vocabulary)
    return every[~torch.isin(every, _tensor(auxiliary.spared))]


def _tensor(ids: Sequence[int]) -> Tensor:
    return torch.tensor(ids, dtype=torch.int64)
