"""The masked-LM objective: hide some tokens of a sequence, and guess them.

Only the hidden positions go through the head and the vocabulary projection. B batch, T tokens, D hidden,
M hidden positions of a batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import Backbone, load_backbone

MASKED = 0.9  # of the chosen tokens; the others stay readable, so that the encoder stays true to real tokens


@dataclass(frozen=True)
class Masked:
    """A batch with tokens hidden: ids (B, T), which places count (B, T) bool, and what stood there (M,)."""

    ids: Tensor
    chosen: Tensor
    gold: Tensor


@dataclass(frozen=True)
class Measure:
    """How well hidden tokens are guessed: mean cross-entropy in nats, share of right first guesses."""

    cross_entropy: float
    top1: float


def mask_tokens(ids: np.ndarray, tokenizer: Any, share: float, rng: np.random.Generator) -> Masked:
    """ids (B, T) with each token chosen with probability ``share``: no special ones, at least one in all."""
    scores = np.where(np.isin(ids, tokenizer.all_special_ids), 2.0, rng.random(ids.shape))
    chosen = (scores < share) | (scores == scores.min())
    hidden = np.where(chosen & (rng.random(ids.shape) < MASKED), tokenizer.mask_token_id, ids)
    return Masked(torch.from_numpy(hidden), torch.from_numpy(chosen), torch.from_numpy(ids[chosen]))


def masked_logits(backbone: Backbone, ids: Tensor, chosen: Tensor) -> Tensor:
    """(M, V) fp32 logits at the chosen positions of ids (B, T); there is no padding."""
    states = backbone.model.base_model(input_ids=ids.to(backbone.device)).last_hidden_state
    return head_logits(backbone, states[chosen.to(backbone.device)])


def head_logits(backbone: Backbone, states: Tensor) -> Tensor:
    """(M, V) fp32 logits of the backbone's own masked-LM head for states (M, D) of its last layer."""
    model, family = backbone.model, backbone.family
    dense, norm = model.get_submodule(family.head_dense), model.get_submodule(family.head_norm)
    activation = F.gelu if family.head_activation == "gelu" else model.get_submodule(family.head_activation)
    found = norm(activation(dense(states)))
    return F.linear(found, backbone.word_rows, model.get_parameter(family.decoder_bias)).float()


def masked_loss(backbone: Backbone, batch: Masked) -> Tensor:
    """Mean cross-entropy over the hidden positions, with a graph."""
    logits = masked_logits(backbone, batch.ids, batch.chosen)
    return F.cross_entropy(logits, batch.gold.to(backbone.device))


@torch.inference_mode()
def measure(backbone: Backbone, batches: Iterable[Masked]) -> Measure:
    """The ``Measure`` over all hidden positions of all batches."""
    loss = right = positions = 0.0
    for batch in batches:
        logits, gold = masked_logits(backbone, batch.ids, batch.chosen), batch.gold.to(backbone.device)
        loss += F.cross_entropy(logits, gold, reduction="sum").item()
        right += (logits.argmax(-1) == gold).sum().item()
        positions += len(gold)
    return Measure(loss / positions, right / positions)


def fill_mask(
    backbone: Backbone | str | Path, sentences: Sequence[str], top: int = 5
) -> list[tuple[str, list[tuple[str, float]]]]:
    """Each sentence with the ``top`` (word, probability) pairs for its first ``[MASK]``, likeliest first.

    ``[MASK]`` stands for the backbone's own mask token. Raises InputError for a sentence without one, and for a
    backbone without a masked-LM head.
    """
    loaded = backbone if isinstance(backbone, Backbone) else load_backbone(str(backbone))
    loaded.require_head("guessing words")
    return [(sentence, _guesses(loaded, sentence, top)) for sentence in sentences]


@torch.inference_mode()
def _guesses(backbone: Backbone, sentence: str, top: int) -> list[tuple[str, float]]:
    tokenizer = backbone.tokenizer
    text = sentence.replace("[MASK]", tokenizer.mask_token)
    ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=backbone.max_length)["input_ids"]
    places = (ids[0] == tokenizer.mask_token_id).nonzero().flatten().tolist()
    if not places:
        raise InputError(f"no [MASK] within reach in {sentence!r}; put one where a word is missing.")
    chosen = torch.zeros_like(ids, dtype=torch.bool)
    chosen[0, places[0]] = True
    logits = masked_logits(backbone, ids, chosen)[0]
    best = logits.softmax(-1).topk(min(top, len(logits)))
    words = [tokenizer.decode([token]).strip() for token in best.indices.tolist()]
    return list(zip(words, best.values.tolist(), strict=True))
