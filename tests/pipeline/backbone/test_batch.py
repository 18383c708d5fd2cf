"""Batches: tokens that are hidden from the tuned layers, and never the mask. Texts: which are the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import tiny_backbone

from listflow.pipeline.backbone.batch import Batch, Encoded
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.config import VerbalizerHead
from listflow.pipeline.stages.presets import stages


def batch() -> Batch:
    ids = torch.randint(5, 40, (4, 9), generator=torch.Generator().manual_seed(0))
    attention = torch.ones_like(ids)
    attention[1, 6:] = 0
    return Batch(ids, attention, torch.tensor([3, 2, 8, 0]))


def test_cutoff_hides_tokens_but_never_the_mask_the_first_or_padding() -> None:
    whole = batch()
    cut = whole.cut(0.5, torch.Generator().manual_seed(1))
    assert cut.visible is not None
    assert (cut.visible <= whole.attention).all()
    assert cut.visible.sum() < whole.attention.sum()
    assert cut.visible[torch.arange(4), whole.mask_at].all()
    assert cut.visible[:, 0].all()
    assert torch.equal(whole.cut(0.5, torch.Generator().manual_seed(1)).visible, cut.visible)
    assert whole.cut(0.0, torch.Generator().manual_seed(1)).attended.equal(whole.attention)


def test_joining_a_cut_batch_leaves_the_other_whole() -> None:
    cut = batch().cut(0.5, torch.Generator().manual_seed(1))
    joined = cut.join(batch())
    assert joined.visible is not None
    assert cut.visible is not None
    assert torch.equal(joined.visible, torch.cat([cut.visible, batch().attention]))


@torch.no_grad()
def test_hidden_tokens_are_hidden_from_the_tuned_layers_only() -> None:
    chosen = stages("list", layers="top:1", width=4, init_std=0.1)
    model = Classifier(tiny_backbone(), chosen, VerbalizerHead(), [(5,), (6,)])
    whole, cut = batch(), batch().cut(0.5, torch.Generator().manual_seed(1))
    assert model.below is not None
    below = model.below(input_ids=whole.ids, attention_mask=whole.attention).last_hidden_state
    kept = Batch(cut.ids, cut.attention, cut.mask_at, below, cut.visible)
    assert not torch.allclose(model(cut), model(whole))
    assert torch.equal(model(cut), model(kept))


def encoded(texts: list[list[int]]) -> Encoded:
    offsets = np.cumsum([0, *map(len, texts)])
    return Encoded(np.concatenate(texts), offsets, np.arange(len(texts)), 0)


def told(found: Encoded) -> list[list[int]]:
    return [found.ids[start:end].tolist() for start, end in zip(found.offsets, found.offsets[1:], strict=False)]


def test_texts_are_merged_by_their_places() -> None:
    old, new = encoded([[1, 2], [3], [4, 5, 6]]), encoded([[7], [8, 9]])
    found = old.merged(np.array([2, -1, 0, 0, -1]), new)
    assert told(found) == [[4, 5, 6], [7], [1, 2], [1, 2], [8, 9]]
    assert found.mask_at.tolist() == [2, 0, 0, 0, 1]
    assert told(old.merged(np.array([1, 0]), None)) == [[3], [1, 2]]


def test_texts_are_alike_where_all_of_their_tokens_are(monkeypatch: pytest.MonkeyPatch) -> None:
    old = encoded([[1, 2], [3], [4, 5, 6], [1, 2]])
    new = encoded([[4, 5, 6], [9], [3], [1, 9], [9, 2], [1], [1, 2]])
    places = np.array([2, -1, 1, 0, 3, 0, 3])
    for at_once in (1, 2, 2048):
        monkeypatch.setattr("listflow.pipeline.backbone.batch.TEXTS_AT_ONCE", at_once)
        assert old.alike(places, new).tolist() == [2, -1, 1, -1, -1, -1, 3]
