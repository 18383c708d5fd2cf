"""Batches: tokens that are hidden from the tuned layers, and never the mask."""

from __future__ import annotations

import torch
from tiny import tiny_backbone

from listflow.pipeline.backbone.batch import Batch
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
