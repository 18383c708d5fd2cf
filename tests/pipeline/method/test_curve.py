"""What more labels would bring: nested subsets, the same rows asked about, and nothing said of too few."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from listflow.pipeline.method import curve
from listflow.pipeline.method.curve import learning_curve
from listflow.pipeline.method.gate import stratified
from listflow.pipeline.method.label_vectors import Known, centre_of, teach
from listflow.pipeline.method.metrics import Curve

CLASSES, WIDTH = 4, 24


def known_of(shots: int, noise: float, seed: int = 1) -> Known:
    generator = torch.Generator().manual_seed(seed)
    centres = F.normalize(torch.randn(CLASSES, WIDTH, generator=generator), dim=-1)
    gold = torch.arange(shots * CLASSES) % CLASSES
    rows = centres[gold] + noise * torch.randn(len(gold), WIDTH, generator=generator) / WIDTH**0.5
    rows = F.normalize(rows, dim=-1)
    return Known(F.normalize(rows - centre_of(rows, gold), dim=-1), gold, rows, None, CLASSES)


def of(known: Known, seed: int = 1) -> Curve | None:
    folds = stratified(known.gold.numpy(), 5, np.random.default_rng(seed))
    alone = teach(known, [rows.tolist() for rows in folds], with_pool=False)
    return learning_curve(known, alone.weighed, folds, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(3))
def test_it_rises_where_labels_are_what_is_missing(seed: int) -> None:
    found = of(known_of(12, 1.5, seed))
    assert found is not None
    assert found.labelled == (9, 19, 38)
    assert found.accuracy[0] < found.accuracy[-1]
    assert found.gain == pytest.approx(found.accuracy[-1] - found.accuracy[-2])
    assert found.error > 0


def test_it_is_flat_where_everything_is_known() -> None:
    found = of(known_of(12, 0.1))
    assert found is not None
    assert found.accuracy == (1.0, 1.0, 1.0)
    assert (found.gain, found.error) == (0.0, 0.0)


@pytest.mark.parametrize("shots", [1, 3])
def test_of_too_few_labels_it_says_nothing(shots: int) -> None:
    known = known_of(shots, 0.5)
    folds = stratified(known.gold.numpy(), 5, np.random.default_rng(1))
    weighed = teach(known, [rows.tolist() for rows in folds], with_pool=False).weighed
    assert learning_curve(known, weighed, folds, np.random.default_rng(1)) is None


def test_the_same_seed_draws_the_same_subsets_and_each_is_part_of_the_next() -> None:
    gold = known_of(8, 1.0).gold.numpy()
    folds = stratified(gold, 4, np.random.default_rng(1))
    one, two = (curve._subsets(gold, folds, (6, 12, 24), np.random.default_rng(2)) for _ in range(2))
    assert torch.equal(one, two)
    seen = one.view(len(folds), 3, len(gold)).bool()
    assert seen.sum(-1).tolist() == [[6, 12, 24]] * 4
    assert ((seen[:, 0] <= seen[:, 1]) & (seen[:, 1] <= seen[:, 2])).all()
    assert not any(seen[fold, :, held].any() for fold, held in enumerate(folds))
    for fold in seen:
        assert np.ptp(np.bincount(gold[fold[1].numpy()], minlength=CLASSES)) <= 1


def test_many_classes_draw_fewer_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    known = known_of(12, 1.5)
    assert curve._orders(known, 15) == curve.ORDERS
    monkeypatch.setattr(curve, "LARGEST", 15 * CLASSES * WIDTH)
    assert curve._orders(known, 15) == 1
