"""Label vectors as a head: the product that it says it is, whose centre is kept and never trained."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_backbone

from listflow.pipeline.backbone.batch import one_vector_each
from listflow.pipeline.method.reweight import ENGINES, Step
from listflow.pipeline.model.classifier import Classifier, logits_of
from listflow.pipeline.model.config import PrototypesHead
from listflow.pipeline.stages.config import NoStage

WIDTH, CLASSES = 32, 3


def classifier(**settings: object) -> Classifier:
    head = PrototypesHead.model_validate({"width": WIDTH, **settings})
    return Classifier(tiny_backbone(), [NoStage()], head, ((),) * CLASSES, seed=1)


def vectors(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("normalised", [True, False])
def test_logits_are_scaled_products_with_the_features_less_their_centre(normalised: bool) -> None:
    model, values = classifier(normalised=normalised, scale=7.0), vectors(5)
    tensors = model.tensors()
    tensors["head.centre"] = vectors(1, 1)[0]
    model.load(tensors)
    e = F.normalize(values, dim=-1) if normalised else values
    e = e - tensors["head.centre"]
    e = F.normalize(e, dim=-1) if normalised else e
    wanted = 7 * e @ tensors["head.out.weight"].T + tensors["head.out.bias"]
    assert torch.allclose(logits_of(model, one_vector_each(values.numpy())), wanted, atol=1e-5)


def test_two_parts_are_each_of_unit_length_and_the_second_as_long_as_it_is_weighed() -> None:
    model, values = classifier(middle=0.5, scale=7.0), vectors(5)
    tensors = model.tensors()
    tensors["head.centre"] = vectors(1, 1)[0]
    model.load(tensors)
    half = WIDTH // 2
    parts = []
    for place, length in ((slice(half), 1.0), (slice(half, WIDTH), 0.5)):
        e = F.normalize(F.normalize(values[:, place], dim=-1) - tensors["head.centre"][place], dim=-1)
        parts.append(length * e / 1.25**0.5)
    wanted = 7 * torch.cat(parts, 1) @ tensors["head.out.weight"].T + tensors["head.out.bias"]
    assert torch.allclose(logits_of(model, one_vector_each(values.numpy())), wanted, atol=1e-5)
    assert torch.allclose(torch.cat(parts, 1).norm(dim=1), torch.ones(5))


def test_pairs_have_no_middle() -> None:
    values = one_vector_each(vectors(5).numpy())
    found = [logits_of(classifier(normalised=False, middle=middle), values) for middle in (0.0, 0.5)]
    assert torch.equal(*found)


def test_the_centre_is_saved_and_not_trained() -> None:
    model = classifier()
    assert set(model.tunable()) == {"head.out.weight", "head.out.bias"}
    assert set(model.tensors()) == {"head.out.weight", "head.out.bias", "head.centre"}
    with pytest.raises(ValueError, match="do not fit"):
        model.load(model.tunable())


def test_rows_of_one_vector_are_taken_and_joined_like_texts() -> None:
    one, two = one_vector_each(vectors(6).numpy()), one_vector_each(vectors(3, 1).numpy())
    model = classifier()
    whole = logits_of(model, one.take(torch.tensor([4, 1]).numpy()).join(two))
    parts = torch.cat([logits_of(model, one)[[4, 1]], logits_of(model, two)])
    assert torch.allclose(whole, parts, atol=1e-6)


def test_every_engine_gives_the_same_meta_weights() -> None:
    rows, gold = one_vector_each(vectors(10).numpy()), torch.arange(4) % CLASSES
    soft = torch.rand(6, CLASSES, generator=torch.Generator().manual_seed(2)).softmax(-1)
    found = []
    for engine in ENGINES.values():
        model = classifier()
        step = Step(rows.batch(range(6)), soft, rows.batch(range(6, 10)), gold)
        done = engine(model, list(model.tunable().values()), step)
        found.append((done.weights, [p.grad for p in model.tunable().values()]))
    for weights, gradients in found[1:]:
        assert torch.allclose(weights, found[0][0], atol=1e-5)
        for one, other in zip(gradients, found[0][1], strict=True):
            assert one is not None
            assert other is not None
            assert torch.allclose(one, other, atol=1e-5)
