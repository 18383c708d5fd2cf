"""Batches: tokens that are hidden from the tuned layers, and never the mask. Texts: which are the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import tiny_backbone

from listflow.pipeline.backbone import batch as batch_module
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


def texts_of(*lengths: int) -> Batch:
    ids = torch.randint(5, 40, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(0))
    attention = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return Batch(ids, attention, torch.zeros(len(lengths), dtype=torch.int64))


def test_taken_rows_are_padded_no_further_than_they_need() -> None:
    whole = texts_of(3, 30, 9)
    few = replace(whole, hidden=torch.rand(3, 30, 2), visible=whole.attention).take(torch.tensor([2, 0]))
    assert few.ids.shape == few.attention.shape == (2, 16)
    assert few.hidden is not None
    assert few.visible is not None
    assert few.hidden.shape == (2, 16, 2)
    assert few.lengths.tolist() == few.visible.sum(1).tolist() == [9, 3]
    assert few.ids[0, :9].equal(whole.ids[2, :9])
    assert whole.take(torch.tensor([], dtype=torch.int64)).ids.shape == (0, 0)
    assert texts_of(5).join(whole.take(torch.tensor([], dtype=torch.int64))).ids.equal(texts_of(5).ids)


def test_of_a_long_text_only_the_long_text_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    short, mixed = texts_of(*[8] * 16), texts_of(7, 40, 6, 8)
    along, apart = short.company(mixed)
    assert (sorted(along.tolist()), apart.tolist()) == ([0, 2, 3], [1])
    # Rows that fit go along, whatever a pass costs; where it costs much, all do.
    assert short.company(texts_of(8, 3, 5))[1].tolist() == []
    monkeypatch.setitem(batch_module.A_PASS, True, 10_000)
    assert short.company(mixed)[1].tolist() == []


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
