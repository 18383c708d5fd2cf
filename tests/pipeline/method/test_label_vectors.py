"""Label vectors: never below what logistic regression makes of the labels, with names and pool where they help."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from listflow.pipeline.method import label_vectors
from listflow.pipeline.method.information import SCALE
from listflow.pipeline.method.label_vectors import Known, Taught, centre_of, teach

CLASSES = 4


def world(shots: int, seed: int, classes: int = CLASSES, pool: int = 400) -> tuple[Known, torch.Tensor, torch.Tensor]:
    """(what is known, features and classes of rows to be measured on): noisy clusters, and names near their centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = F.normalize(torch.randn(classes, 24, generator=generator), dim=-1)

    def rows(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        gold = torch.arange(count) % classes
        noise = torch.randn(count, 24, generator=generator) / math.sqrt(24)
        return F.normalize(0.8 * centres[gold] + noise, dim=-1), gold

    (labelled, gold), (unlabelled, _), (test, wanted) = rows(shots * classes), rows(pool), rows(400)
    names = F.normalize(centres + 0.5 * torch.randn(classes, 24, generator=generator) / math.sqrt(24), dim=-1)
    centre = centre_of(labelled, gold)
    labelled, unlabelled, test = (F.normalize(e - centre, dim=-1) for e in (labelled, unlabelled, test))
    return Known(labelled, gold, unlabelled, names, classes), test, wanted


def folds_for(known: Known, count: int = 5) -> list[list[int]]:
    return [list(range(start, len(known.gold), count)) for start in range(count)]


def accuracy(taught: Taught, test: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((SCALE * test @ taught.weight.T + taught.bias).argmax(-1) == wanted).float().mean().item()


@pytest.mark.parametrize("seed", range(3))
def test_without_names_and_pool_it_is_logistic_regression_within_a_point(seed: int) -> None:
    known, test, wanted = world(8, seed)
    bare = Known(known.labelled, known.gold, known.pool, None, CLASSES)
    found = accuracy(teach(bare, folds_for(bare), with_pool=False), test, wanted)
    model = LogisticRegression(C=10, max_iter=1000).fit(known.labelled.numpy(), known.gold.numpy())
    assert found >= (model.predict(test.numpy()) == wanted.numpy()).mean() - 0.01


@pytest.mark.parametrize("seed", range(3))
def test_names_and_pool_help_where_they_say_something(seed: int) -> None:
    known, test, wanted = world(2, seed)
    bare = Known(known.labelled, known.gold, known.pool, None, CLASSES)
    with_all = teach(known, ())
    assert accuracy(with_all, test, wanted) > accuracy(teach(bare, (), with_pool=False), test, wanted)
    assert with_all.names_tell > 0.5


@pytest.mark.parametrize("seed", range(3))
def test_names_that_lie_are_not_believed(seed: int) -> None:
    known, test, wanted = world(8, seed)
    assert known.names is not None
    lying = Known(known.labelled, known.gold, known.pool, known.names.roll(1, 0), CLASSES)
    taught = teach(lying, folds_for(lying))
    assert taught.names_tell < 0.5
    assert sum(each.weight for each in taught.weighed if "name" in each.name) < 0.3
    bare = teach(Known(known.labelled, known.gold, known.pool, None, CLASSES), folds_for(known))
    assert accuracy(taught, test, wanted) > accuracy(bare, test, wanted) - 0.05


def test_every_class_may_have_one_row() -> None:
    known, test, wanted = world(1, 0, classes=20)
    taught = teach(known, ())
    assert accuracy(taught, test, wanted) > accuracy(teach(known, (), with_pool=False), test, wanted) - 0.02
    assert {each.temperature for each in taught.weighed} == {1.0}
    # Held against the labels is what was said before any of them was used.
    assert known.names is not None
    scaled = SCALE * known.labelled @ known.names.T
    assert torch.allclose(taught.held_out.softmax(-1).argmax(-1), scaled.argmax(-1))


def test_held_out_rows_did_not_see_their_label() -> None:
    known, _, _ = world(6, 0)
    other = known.gold.clone()
    other[0] = (other[0] + 1) % CLASSES
    folds = folds_for(known)
    wrong = Known(known.labelled, other, known.pool, None, CLASSES)
    right = Known(known.labelled, known.gold, known.pool, None, CLASSES)
    one, two = (teach(each, folds, with_pool=False).held_out[0] for each in (wrong, right))
    # The row's own label moves temperatures and weights alone: its best class stays.
    assert one.argmax() == two.argmax()


def test_a_class_without_a_row_is_found_by_its_name() -> None:
    known, test, wanted = world(6, 1)
    kept = known.gold != 3
    part = Known(known.labelled[kept], known.gold[kept], known.pool, known.names, CLASSES)
    taught = teach(part, [list(range(start, int(kept.sum()), 5)) for start in range(5)])
    found = (SCALE * test @ taught.weight.T + taught.bias).argmax(-1)
    assert (found[wanted == 3] == 3).float().mean() > 0.4
    assert not torch.isnan(taught.weight).any()


def test_stated_shares_are_held() -> None:
    known, test, _ = world(4, 2)
    stated = torch.tensor([0.85, 0.05, 0.05, 0.05])
    even, uneven = (
        teach(Known(known.labelled, known.gold, known.pool, None, CLASSES, shares), folds_for(known))
        for shares in (None, stated)
    )
    first = [(SCALE * test @ taught.weight.T + taught.bias).softmax(-1).mean(0)[0].item() for taught in (even, uneven)]
    assert first[1] > first[0]


def test_pairs_have_no_names() -> None:
    known, _, _ = world(6, 3, classes=2)
    pairs = Known(known.labelled, known.gold, known.pool, None, 2, are_pairs=True)
    taught = teach(pairs, folds_for(pairs))
    assert [each.name for each in taught.weighed] == ["regression, refined", "regression, refined long"]
    assert sum(each.weight for each in taught.weighed) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
def test_a_pool_whose_groups_are_not_the_classes_is_believed_less(seed: int) -> None:
    """Half of the weight is the pool's before any row was held out; with many labels most of it goes."""
    generator = torch.Generator().manual_seed(seed)

    def rows(gold: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        found = 0.3 * torch.randn(len(gold), 24, generator=generator)
        found[:, 0] += (gold * 2 - 1) * 0.3
        found[:, 1] += group * 2 - 1
        return F.normalize(found, dim=-1)

    gold, pool = torch.arange(200) % 2, torch.arange(400)
    near = (torch.rand(200, generator=generator) < 0.15 + 0.7 * gold).long()
    misled = Known(rows(gold, near), gold, rows(pool % 2, pool // 2 % 2), None, 2)
    found = refined_share(teach(misled, folds_for(misled)))
    assert found < 0.4
    known, _, _ = world(4, seed)
    assert refined_share(teach(known, folds_for(known))) > found + 0.1


def refined_share(taught: Taught) -> float:
    return sum(each.weight for each in taught.weighed if "refined" in each.name)


def test_many_classes_are_refined_one_recipe_at_a_time_to_the_same_end(monkeypatch: pytest.MonkeyPatch) -> None:
    known, _, _ = world(4, 5)
    at_once = teach(known, folds_for(known))
    monkeypatch.setattr(label_vectors, "MANY", CLASSES - 1)
    in_turn = teach(known, folds_for(known))
    torch.testing.assert_close(in_turn.weight, at_once.weight, rtol=0, atol=1e-5)
    assert [each.name for each in in_turn.weighed] == [each.name for each in at_once.weighed]


def test_the_same_again_is_the_same_to_the_last_bit() -> None:
    known, _, _ = world(4, 4)
    one, two = (teach(known, folds_for(known)) for _ in range(2))
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(one.held_out, two.held_out)
