"""Meta weights for noisy pseudo labels (arXiv 2110.06274, section 3.3; Ren et al. 2018, eqs. 4-8).

w_i = max(0, s_i) / (sum_j max(0, s_j) + eps),  s_i = <grad l_i, grad L_V>

with l_i the loss of pseudo-labelled example i, L_V the mean loss of a labelled batch V, and gradients over the
tensors that the optimiser updates. Every engine returns the same numbers and leaves sum_i w_i grad l_i in
``.grad``:

- ``higher``  the reference: one unrolled SGD step from zero example weights, differentiated.
- ``fused``   one backward over U and V, which share a pass where padding does not forbid it; see ``tape.py``.
- ``jvp``     one forward-mode pass along grad L_V; for tensors that ``fused`` has no rule for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from listflow.pipeline.method.tape import per_example_dots, recording, summed_gradients, weighted_gradients


@dataclass(frozen=True)
class Reweighted:
    """``scores`` s, ``weights`` w and ``losses`` l, each (B,); ``uniform`` when no score was positive."""

    scores: Tensor
    weights: Tensor
    losses: Tensor
    uniform: bool


@dataclass(frozen=True)
class Step:
    """What one reweighted step sees: U with soft labels (B, C), V with gold labels (b,).

    A batch is what the model takes, and has a ``len``; ``fused`` needs its ``join``, ``take`` and ``company`` too.
    ``pads`` says whether the model's time grows with the padding of a batch.
    """

    unlabelled: Any
    soft: Tensor
    labelled: Any
    gold: Tensor
    eps: float = 1e-12
    pads: bool = True

    def passes(self) -> tuple[Tensor, Tensor]:
        """The rows of V that share a pass with U, and those that have one of their own."""
        if self.pads:
            along, apart = self.unlabelled.company(self.labelled)
            return along, apart
        every = torch.arange(len(self.labelled))
        return every, every[:0]


# Takes the model and its trained tensors, and leaves the gradient of the weighted loss in their ``.grad``.
Engine = Callable[[nn.Module, list[nn.Parameter], Step], Reweighted]


def kl(soft: Tensor, logits: Tensor) -> Tensor:
    """KL(soft || softmax(logits)) per example, (B,)."""
    return F.kl_div(F.log_softmax(logits, -1), soft, reduction="none").sum(-1)


def normalise(scores: Tensor, eps: float) -> tuple[Tensor, bool]:
    """(weights (B,), whether they fell back to uniform because no score is positive)."""
    positive = scores.clamp_min(0)
    if not bool(positive.any()):
        return torch.full_like(scores, 1 / len(scores)), True
    return positive / (positive.sum() + eps), False


def fused(model: nn.Module, parameters: list[nn.Parameter], step: Step) -> Reweighted:
    """Scores and weighted gradient from one backward over U, and over V beside it or along with it."""
    size, (along, apart) = len(step.unlabelled), step.passes()
    with recording() as tape:
        logits = model(step.unlabelled.join(step.labelled.take(along)))
    with recording() as beside:
        labelled = torch.cat([logits[size:], model(step.labelled.take(apart))]) if len(apart) else logits[size:]
    losses = kl(step.soft, logits[:size])
    total = losses.sum() + F.cross_entropy(labelled, step.gold[torch.cat([along, apart])])
    found = list(torch.autograd.grad(total, [*tape.watched, *beside.watched]))
    gradients, others = found[: len(tape.watched)], found[len(tape.watched) :]
    target = summed_gradients([(tape, gradients, size), (beside, others, 0)])
    scores = per_example_dots(tape, gradients, size, target)
    weights, uniform = normalise(scores, step.eps)
    for parameter, gradient in weighted_gradients(tape, gradients, weights).items():
        parameter.grad = gradient
    return Reweighted(scores, weights, losses.detach(), uniform)


def higher(model: nn.Module, parameters: list[nn.Parameter], step: Step) -> Reweighted:
    """The unrolled reference; second-order graph and all. Scores are divided by the inner rate."""
    import higher as unroll

    rate = 1.0
    inner = torch.optim.SGD(parameters, lr=rate)
    training = model.training
    model.eval()
    with sdpa_kernel(SDPBackend.MATH), unroll.innerloop_ctx(model, inner) as (fast, optimiser):
        example_weights = torch.zeros(len(step.unlabelled), device=step.soft.device, requires_grad=True)
        optimiser.step((example_weights * kl(step.soft, fast(step.unlabelled))).sum())
        meta_loss = F.cross_entropy(fast(step.labelled), step.gold)
        scores = -torch.autograd.grad(meta_loss, example_weights)[0] / rate
    model.train(training)
    return _descend(model, parameters, step, scores.detach())


def jvp(model: nn.Module, parameters: list[nn.Parameter], step: Step) -> Reweighted:
    """Scores as the tangent of the per-example losses along the labelled gradient."""
    names = {id(p): name for name, p in model.named_parameters()}
    training = model.training
    model.eval()
    with sdpa_kernel(SDPBackend.MATH):
        meta_loss = F.cross_entropy(model(step.labelled), step.gold)
        towards = torch.autograd.grad(meta_loss, parameters)
        primal = {names[id(p)]: p.detach() for p in parameters}
        tangent = {names[id(p)]: g for p, g in zip(parameters, towards, strict=True)}

        def losses_at(tensors: dict[str, Tensor]) -> Tensor:
            # tie_weights would swap a module that is reachable by two paths twice, and restore it wrongly.
            return kl(step.soft, functional_call(model, tensors, (step.unlabelled,), tie_weights=False))

        scores = torch.func.jvp(losses_at, (primal,), (tangent,))[1]
    model.train(training)
    return _descend(model, parameters, step, scores.detach())


def _descend(model: nn.Module, parameters: list[nn.Parameter], step: Step, scores: Tensor) -> Reweighted:
    """Weights from ``scores``, and the gradient of the weighted loss in ``.grad``."""
    weights, uniform = normalise(scores, step.eps)
    losses = kl(step.soft, model(step.unlabelled))
    gradients = torch.autograd.grad((weights * losses).sum(), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    return Reweighted(scores, weights, losses.detach(), uniform)


ENGINES: dict[str, Engine] = {"higher": higher, "fused": fused, "jvp": jvp}
