"""Label vectors from labels, names and a pool: candidates, weighed by what each says of rows held out.

Features are taken less a centre, the mean of the classes' means: that of an uneven pool would be its largest class.
A candidate starts from logistic regression on the labelled rows, or from the unit sum of each class's rows; with names,
each counts as so many rows more. It stays as that is, or is refined by what the pool tells (information.py). The
candidate's temperature T_i and its weight w_i, in proportion to prior times exp(-K NLL / 4), come from out-of-fold
logits; names share 0.9 of the prior where they alone tell the labelled rows apart, and 0.1 where they do not, and the
pool half. As candidates are linear, the teacher sum_i w_i z_i / T_i is one linear map again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import one_hot

from listflow.pipeline.method.information import RATE, SCALE, Labelled, Maps, refined, shares_of
from listflow.pipeline.method.mixture import nll, shrunk, temperature

PENALTY = 10.0  # C of logistic regression
NAME_ROWS = 4.0
POWER = 0.25
TRUSTED = 0.9
MANY = 200  # classes from which memory counts: a refinement has logits of the pool for each fold and class


@dataclass(frozen=True)
class Recipe:
    """How a candidate begins: from a regression or from sums; a name counts as ``names`` rows. 0: without names.

    ``fit`` and ``rate`` are those of its refinement (information.py); rate 0: it is not refined.
    """

    name: str
    regression: bool
    names: float = 0.0
    fit: float | None = None
    rate: float = 0.0


STARTS = (
    Recipe("regression", regression=True),
    Recipe("class means", regression=False),
    Recipe("regression with names", regression=True, names=NAME_ROWS),
    Recipe("class means with names", regression=False, names=NAME_ROWS),
    Recipe("names first", regression=False, names=3 * NAME_ROWS),
)
RECIPES = STARTS + tuple(replace(start, name=f"{start.name}, refined", rate=RATE) for start in STARTS)
# No name is like a pair, the mean of pairs is not like one either, and labels alone tell less of two texts than of one.
FOR_PAIRS = (
    Recipe("regression, refined", regression=True, rate=RATE),
    Recipe("regression, refined long", regression=True, fit=1.0, rate=3 * RATE),
)


@dataclass(frozen=True)
class Known:
    """Features less the centre: labelled rows (K, F) with their classes, the pool (N, F), unit name vectors (C, F).

    The row of a class whose name says nothing is zero; ``names`` is None where none says anything. ``shares`` (C,) of
    the pool, where the user states them.
    """

    labelled: Tensor
    gold: Tensor
    pool: Tensor
    names: Tensor | None
    classes: int
    shares: Tensor | None = None
    are_pairs: bool = False

    def recipes(self, with_pool: bool) -> tuple[Recipe, ...]:
        """Those that fit what is known."""
        if self.are_pairs:
            return FOR_PAIRS if with_pool else STARTS[:1]
        found = RECIPES if with_pool else STARTS
        return tuple(recipe for recipe in found if self.names is not None or not recipe.names)


@dataclass(frozen=True)
class Weighed:
    """A candidate's ``weight`` in the teacher, its temperature, and its held-out NLL in nats."""

    name: str
    weight: float
    temperature: float
    nll: float


@dataclass(frozen=True)
class Taught:
    """The teacher: ``weight`` (C, F) and ``bias`` (C,) of z = SCALE e W^T + b, and what it is made of.

    ``held_out`` (K, C) are logits of labelled rows without their own label; ``names_tell`` is how likely names say
    something, ``shares`` (C,) what the teacher sees in the pool.
    """

    weight: Tensor
    bias: Tensor
    held_out: Tensor
    weighed: tuple[Weighed, ...]
    names_tell: float
    shares: Tensor


def centre_of(labelled: Tensor, gold: Tensor) -> Tensor:
    """(F,) the mean of the means of the classes that have a row."""
    return torch.stack([labelled[gold == c].mean(0) for c in gold.unique()]).mean(0)


def teach(known: Known, folds: Sequence[Sequence[int]], with_pool: bool = True) -> Taught:
    """The teacher; ``folds`` are the rows that each refit must not see, none where most classes have one row."""
    seen = torch.ones(1 + len(folds), len(known.gold))
    for fold, rows in enumerate(folds, 1):
        seen[fold, list(rows)] = 0
    recipes = known.recipes(with_pool)
    made = candidates(known, Labelled(known.labelled, known.gold, seen), recipes)
    tell = _names_tell(known)
    held = {name: _held_out(maps, known, folds) for name, maps in made.items()}
    rows = sorted(row for fold in folds for row in fold)
    weighed = _weighed(held, known.gold, rows, _prior(recipes, tell))
    parts = [each.weight / each.temperature for each in weighed]
    weight, bias, held_out = (
        torch.stack([part * tensor for part, tensor in zip(parts, tensors, strict=True)]).sum(0)
        for tensors in ([m.weight[0] for m in made.values()], [m.bias[0] for m in made.values()], held.values())
    )
    last = shrunk(held_out[rows], known.gold[rows])
    counts = one_hot(known.gold, known.classes).float().sum(0, keepdim=True)
    shares = shares_of(Maps(weight[None], bias[None])(known.pool), counts)
    held_out = held_out if folds else _before_labels(known)
    return Taught(weight / last, bias / last, held_out / last, weighed, tell, shares[0])


def candidates(known: Known, labelled: Labelled, recipes: Sequence[Recipe]) -> dict[str, Maps]:
    """By name, the maps of each recipe: the first sees all labelled rows, each other one misses a fold."""
    begun = {(r.regression, r.names): None for r in recipes}
    starts = {how: (_regression if how[0] else _means)(known, labelled, how[1]) for how in begun}
    found = {recipe.name: starts[recipe.regression, recipe.names] for recipe in recipes}
    for fit, rate, *names in _sorts(recipes, known.classes):
        found |= zip(names, _with_pool(known, labelled, [found[name] for name in names], fit, rate), strict=True)
    return found


def _sorts(recipes: Sequence[Recipe], classes: int) -> Iterator[tuple[float | None, float, *tuple[str, ...]]]:
    """(fit, rate, names of recipes) that are refined at once: all alike, or one by one where classes are many."""
    refined = [recipe for recipe in recipes if recipe.rate]
    if classes > MANY:
        yield from ((recipe.fit, recipe.rate, recipe.name) for recipe in refined)
        return
    for fit, rate in {(recipe.fit, recipe.rate): None for recipe in refined}:
        yield fit, rate, *(recipe.name for recipe in refined if (recipe.fit, recipe.rate) == (fit, rate))


def _with_pool(
    known: Known, labelled: Labelled, starts: Sequence[Maps], fit: float | None, rate: float
) -> Iterator[Maps]:
    """Each of ``starts`` refined, all in one tensor."""
    whole = Labelled(labelled.features, labelled.gold, labelled.seen.repeat(len(starts), 1))
    start = Maps(torch.cat([maps.weight for maps in starts]), torch.cat([maps.bias for maps in starts]))
    shares = shares_of(start(known.pool), whole.counts(known.classes))
    if known.shares is not None:
        shares = known.shares.expand_as(shares)
    moved, count = refined(start, whole, known.pool, shares, rate, fit), len(labelled.seen)
    return map(Maps, moved.weight.split(count), moved.bias.split(count))


def _means(known: Known, labelled: Labelled, name_rows: float) -> Maps:
    """The unit sum of the rows that are seen of each class, and of its name."""
    hot = one_hot(known.gold, known.classes).float()
    summed = torch.einsum("bk,kc,kd->bcd", labelled.seen, hot, known.labelled)
    if name_rows and known.names is not None:
        summed = summed + name_rows * known.names
    return Maps(F.normalize(summed, dim=-1), torch.zeros(summed.shape[:2]))


def _regression(known: Known, labelled: Labelled, name_rows: float) -> Maps:
    """Multinomial logistic regression of all refits in one L-BFGS, in float64; the bias sums to zero."""
    x, gold, weights = known.labelled, known.gold, labelled.seen
    if name_rows and known.names is not None:
        told = known.names.abs().sum(1).gt(0).nonzero().flatten()
        x, gold = torch.cat([x, known.names[told]]), torch.cat([gold, told])
        weights = torch.cat([weights, weights.new_full((len(weights), len(told)), name_rows)], 1)
    x, weights, rows = x.double(), weights.double(), torch.arange(len(gold))
    w = torch.zeros(len(weights), known.classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    b = torch.zeros(len(weights), known.classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [w, b],
        max_iter=150,
        history_size=10,
        tolerance_grad=1e-4,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        z = torch.einsum("kd,bcd->bkc", x, w) + b[:, None]
        missed = -z.log_softmax(-1)[:, rows, gold]
        # The tiny pull on the bias decides between maps that are equal for a softmax.
        loss = PENALTY * (missed * weights).sum() + 0.5 * (w**2).sum() + 1e-4 * (b**2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    bias = b.detach() - b.detach().mean(1, keepdim=True)
    return Maps(w.detach().float() / SCALE, bias.float())


def _held_out(maps: Maps, known: Known, folds: Sequence[Sequence[int]]) -> Tensor:
    """(K, C) logits of each labelled row by the refit that did not see it."""
    found = maps(known.labelled)
    held = found[0].clone()
    for fold, rows in enumerate(folds, 1):
        held[list(rows)] = found[fold, list(rows)]
    return held


def _before_labels(known: Known) -> Tensor:
    """(K, C) what names alone say of the labelled rows; nothing where they say nothing."""
    if known.names is None:
        return torch.zeros(len(known.gold), known.classes)
    return SCALE * known.labelled @ known.names.T


def _names_tell(known: Known) -> float:
    """How likely it is that names say something: by what they alone say of the labelled rows, from 0 to 1."""
    if known.names is None:
        return 0.0
    logits, rows = _before_labels(known), len(known.gold)
    told = nll((logits / temperature(logits, known.gold)).log_softmax(-1), known.gold)
    evidence = rows * (math.log(known.classes) - told) - 0.5 * math.log(rows)
    return float(torch.tensor(1 + evidence, dtype=torch.float64).sigmoid())


def _prior(recipes: Sequence[Recipe], tell: float) -> dict[str, float]:
    """By recipe, its weight before anything is held out."""
    named = [r.name for r in recipes if r.names]
    plain = [r.name for r in recipes if not r.names]
    share = tell * TRUSTED + (1 - tell) * (1 - TRUSTED) if named else 0.0
    return dict.fromkeys(plain, (1 - share) / len(plain)) | dict.fromkeys(named, share / max(1, len(named)))


def _weighed(
    held: Mapping[str, Tensor], gold: Tensor, rows: list[int], prior: Mapping[str, float]
) -> tuple[Weighed, ...]:
    """Each candidate by prior, and by evidence where ``rows`` were held out."""
    if not rows:
        return tuple(Weighed(name, prior[name], 1.0, 0.0) for name in held)
    held, gold = {name: logits[rows] for name, logits in held.items()}, gold[rows]
    temperatures = [temperature(logits, gold) for logits in held.values()]
    told = [nll((z / t).log_softmax(-1), gold) for z, t in zip(held.values(), temperatures, strict=True)]
    scores = [math.log(prior[name]) - POWER * len(gold) * n for name, n in zip(held, told, strict=True)]
    weights = torch.tensor(scores).softmax(0).tolist()
    return tuple(Weighed(*each) for each in zip(held, weights, temperatures, told, strict=True))
