"""Label vectors from labels, names and a pool: candidates, weighed by what each says of rows held out.

Features e are unit vectors less the mean of the classes' means, and unit again: the mean of an uneven pool would be
its largest class. A class's vector starts at the unit sum of its rows and of its name, which counts as NAME_SHOTS
rows. A few steps then go down the loss of transductive information maximisation (TIM, arXiv 2008.11297; for uneven
pools alpha-TIM, arXiv 2204.11181), over vectors and a bias, of logits z = SCALE e W^T + b:

    0.3 CE(labelled) + 0.3 KL(mean prediction over the pool || shares) + 0.1 mean entropy over the pool

The shares are those that the start sees in the pool, (K s_c + 1) / (K + C). A candidate leaves out names or pool.
Its temperature T and its weight, in proportion to exp(-K NLL / 2), come from held-out logits; as candidates are
linear, the teacher sum_i w_i z_i / T_i is one linear map again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from listflow.pipeline.method.mixture import nll, temperature

SCALE, NAME_SHOTS = 10.0, 3.0
STEPS, RATE = 100, 1e-3
LABELLED, DIVERGENCE, ENTROPY = 0.3, 0.3, 0.1
C = 10.0  # of logistic regression
BELIEF = 0.5  # the power of the evidence: few labels should not decide alone


@dataclass(frozen=True)
class Known:
    """Embeddings of labelled rows (K, F), their classes, those of the pool (N, F), and of names (C, F).

    The row of a class whose name says nothing is zero; ``names`` is None where none says anything.
    """

    labelled: Tensor
    gold: Tensor
    pool: Tensor
    names: Tensor | None
    classes: int

    def without(self, held: np.ndarray) -> Known:
        """The same without the labels of the rows ``held``."""
        kept = np.setdiff1d(np.arange(len(self.gold)), held)
        return Known(self.labelled[kept], self.gold[kept], self.pool, self.names, self.classes)


@dataclass(frozen=True)
class Map:
    """z = SCALE unit(e - m) W^T + b: ``weight`` (C, F), ``bias`` (C,), ``centre`` m (F,)."""

    weight: Tensor
    bias: Tensor
    centre: Tensor

    def __call__(self, embeddings: Tensor) -> Tensor:
        """(N, C) logits of (N, F) embeddings."""
        return SCALE * F.normalize(embeddings - self.centre, dim=-1) @ self.weight.T + self.bias


@dataclass(frozen=True)
class Candidate:
    """A way to make label vectors: with names, with the pool, or by logistic regression alone."""

    name: str
    names: bool
    pool: bool
    regression: bool = False


CANDIDATES = (
    Candidate("logistic regression", names=False, pool=False, regression=True),
    Candidate("labels", names=False, pool=False),
    Candidate("labels and names", names=True, pool=False),
    Candidate("labels and pool", names=False, pool=True),
    Candidate("labels, names and pool", names=True, pool=True),
)


@dataclass(frozen=True)
class Weighed:
    """A candidate's ``weight`` in the teacher, its temperature, and its held-out NLL in nats."""

    name: str
    weight: float
    temperature: float
    nll: float


@dataclass(frozen=True)
class Taught:
    """The teacher's map, held-out logits (K, C) of the labelled rows, and what became of each candidate."""

    map: Map
    held_out: Tensor
    weighed: tuple[Weighed, ...]


def teach(known: Known, folds: Sequence[np.ndarray], with_pool: bool = True) -> Taught:
    """The teacher, weighed on ``folds`` of the labelled rows; without the pool, of labels and names alone."""
    chosen = [c for c in CANDIDATES if with_pool >= c.pool and (known.names is not None) >= c.names]
    centre = centre_of(known)
    held_out = [torch.zeros(len(known.gold), known.classes) for _ in chosen]
    for held in folds:
        part = known.without(held)
        for logits, candidate in zip(held_out, chosen, strict=True):
            logits[held] = fit(part, candidate, centre_of(part))(known.labelled[held])
    return _weighed(chosen, [fit(known, c, centre) for c in chosen], held_out, known)


def centre_of(known: Known) -> Tensor:
    """(F,) the mean of the class means; of the pool where there are fewer than two classes."""
    seen = known.gold.unique()
    if len(seen) < 2:
        return known.pool.mean(0)
    return torch.stack([known.labelled[known.gold == c].mean(0) for c in seen]).mean(0)


def fit(known: Known, candidate: Candidate, centre: Tensor) -> Map:
    """The map of one candidate."""
    labelled, pool = (F.normalize(e - centre, dim=-1) for e in (known.labelled, known.pool))
    if candidate.regression:
        return Map(*_regression(labelled, known), centre)
    start = _start(labelled, known, candidate.names)
    if not candidate.pool:
        return Map(start, torch.zeros(known.classes), centre)
    return Map(*_refined(start, labelled, pool, known), centre)


def shares_of(logits: Tensor, labels: int) -> Tensor:
    """(C,) class shares of the pool: of its rows' best classes, drawn to equal ones as ``labels`` rows would."""
    classes = logits.shape[1]
    seen = torch.bincount(logits.argmax(-1), minlength=classes) / len(logits)
    return (labels * seen + 1) / (labels + classes)


def information(logits: Tensor, shares: Tensor) -> Tensor:
    """0.3 KL(mean prediction || shares) + 0.1 mean entropy of the predictions of pool logits (N, C), in nats."""
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    mean = p.mean(0).clamp_min(1e-9)
    return DIVERGENCE * (mean * (mean / shares).log()).sum() - ENTROPY * (p * log_p).sum(-1).mean()


def _start(labelled: Tensor, known: Known, with_names: bool) -> Tensor:
    """(C, F) unit vectors: the sum of a class's rows, and of its name."""
    summed = F.one_hot(known.gold, known.classes).float().T @ labelled
    if with_names and known.names is not None:
        summed = summed + NAME_SHOTS * known.names
    return F.normalize(summed, dim=-1)


def _refined(start: Tensor, labelled: Tensor, pool: Tensor, known: Known) -> tuple[Tensor, Tensor]:
    shares = shares_of(pool @ start.T, len(known.gold))
    weight, bias = start.clone().requires_grad_(), torch.zeros(known.classes, requires_grad=True)
    optimiser = torch.optim.Adam([weight, bias], lr=RATE)
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = information(SCALE * pool @ weight.T + bias, shares)
        if len(labelled):
            loss = loss + LABELLED * F.cross_entropy(SCALE * labelled @ weight.T + bias, known.gold)
        loss.backward()
        optimiser.step()
    return weight.detach(), bias.detach()


def _regression(labelled: Tensor, known: Known) -> tuple[Tensor, Tensor]:
    """(weight, bias); a class without a row gets no vector, and no share."""
    seen, gold = np.unique(known.gold.numpy(), return_inverse=True)
    weight, bias = torch.zeros(known.classes, known.pool.shape[1]), torch.full((known.classes,), -SCALE)
    if len(seen) < 2:
        return weight, torch.zeros_like(bias)
    model = LogisticRegression(C=C, max_iter=1000).fit(labelled.numpy(), gold)
    w, b = torch.from_numpy(model.coef_).float(), torch.from_numpy(model.intercept_).float()
    if len(seen) == 2:
        w, b = torch.cat([-w / 2, w / 2]), torch.cat([-b / 2, b / 2])
    weight[seen], bias[seen] = w / SCALE, b
    return weight, bias


def _weighed(chosen: Sequence[Candidate], maps: Sequence[Map], held: Sequence[Tensor], known: Known) -> Taught:
    temperatures = [temperature(logits, known.gold) for logits in held]
    told = [nll((z / t).log_softmax(-1), known.gold) for z, t in zip(held, temperatures, strict=True)]
    weights = torch.softmax(torch.tensor(told) * (-len(known.gold) * BELIEF), 0).tolist()
    parts = [w / t for w, t in zip(weights, temperatures, strict=True)]

    def summed(tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack([part * tensor for part, tensor in zip(parts, tensors, strict=True)]).sum(0)

    made = Map(summed([m.weight for m in maps]), summed([m.bias for m in maps]), maps[0].centre)
    facts = zip(chosen, weights, temperatures, told, strict=True)
    return Taught(made, summed(held), tuple(Weighed(c.name, w, t, n) for c, w, t, n in facts))
