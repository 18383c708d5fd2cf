"""One training loop for teacher and student.

A ``Recipe`` says which phase every step belongs to; one AdamW and one linear decay to zero span all of them
(arXiv 2110.06274, algorithm 1; the schedule of the public script, one optimiser a round). ``training_tensors`` is the
form in which any training is kept, so that the rest of it can follow later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from listflow.pipeline.backbone.batch import Batch, Encoded
from listflow.pipeline.layers.dropout import seed_dropout
from listflow.pipeline.method.reweight import ENGINES, Step, kl
from listflow.pipeline.method.sampling import bucketed, epochs, generator_for, seed_for
from listflow.pipeline.model.classifier import Classifier, logits_of
from listflow.pipeline.storage.checkpoint import undisturbed
from listflow.pipeline.training.auxiliary import Auxiliary, accompanied, auxiliary_term

MOMENTS = ("step", "exp_avg", "exp_avg_sq")

Phase = Literal["labelled", "warmup", "reweighted", "tail"]


@dataclass(frozen=True)
class Recipe:
    """The steps of one training, in order, and how they are taken."""

    phases: tuple[tuple[Phase, int], ...]
    learning_rate: float
    batch: int
    labelled_batch: int
    meta_batch: int = 4
    engine: str = "fused"
    eps: float = 1e-12
    confidence: float = 0.0
    cutoff: float = 0.0
    clip: float = 1.0
    dropout: bool = False
    auxiliary: Auxiliary | None = None
    seed: int = 0

    @property
    def steps(self) -> int:
        """All of them."""
        return sum(count for _, count in self.phases)

    def schedule(self) -> Iterator[tuple[Phase, int]]:
        """(phase, index within that phase) of every step."""
        for phase, count in self.phases:
            yield from ((phase, i) for i in range(count))


@dataclass(frozen=True)
class Material:
    """What is trained on: labelled rows with gold classes, and unlabelled rows with soft labels (N, C).

    Without soft labels the unlabelled rows are read by an auxiliary loss alone.
    """

    labelled: Encoded
    gold: Tensor
    unlabelled: Encoded | None = None
    soft: Tensor | None = None


@dataclass
class State:
    """Where a training stands.

    ``unfitted`` (K, C) holds the logits of the labelled rows when the labelled tail begins: the last moment at which
    a student has not been fitted to them. ``weighed`` holds (rows, meta weights) of every reweighted step.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    uniform_steps: int = 0
    weighed: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    unfitted: Tensor | None = None


@dataclass(frozen=True)
class Taken:
    """What a step found before it moved the weights; ``weighed``: the rows and meta weights of a reweighted one."""

    loss: float
    weighed: tuple[np.ndarray, np.ndarray] | None = None
    uniform: int = 0


@dataclass(frozen=True)
class Tick:
    """One finished step, for whoever shows progress."""

    phase: Phase
    step: int
    steps: int
    loss: float


class Trainer:
    """Takes the steps of ``recipe`` on ``model``. Bit-equal whether run through or restored in between.

    Weights, optimiser and state move together or not at all: a ``snapshot`` holds whole steps, whatever interrupts one.
    """

    def __init__(self, model: Classifier, recipe: Recipe, material: Material) -> None:
        self.model, self.recipe, self.material = model, recipe, material
        # Held here: an interrupted forward-mode pass leaves its own tensors in the model's place of them.
        self.tunable = model.tunable()
        self.parameters = list(self.tunable.values())
        # One pass over memory in the place of a dozen; on a GPU it would keep its counts of steps there.
        fused = all(parameter.device.type == "cpu" for parameter in self.parameters)
        self.optimiser = torch.optim.AdamW(self.parameters, lr=recipe.learning_rate, weight_decay=0.0, fused=fused)
        self.state = State()
        self.orders = _orders(recipe, material)

    def run(self, on_step: Callable[[Tick], None] = lambda tick: None) -> State:
        """All steps that are left; ``on_step`` is called after each and may take a ``snapshot``."""
        schedule = list(self.recipe.schedule())
        # An interrupt may come between the lines of ``torch.no_grad`` and leave gradients off in this process.
        with torch.enable_grad(), torch.random.fork_rng(enabled=self.recipe.dropout):
            for phase, index in schedule[self.state.step :]:
                if phase == "tail" and index == 0:
                    self.state.unfitted = logits_of(self.model, self.material.labelled)
                loss = self._step(phase, index)
                on_step(Tick(phase, self.state.step, len(schedule), loss))
        self.model.eval()
        if self.state.unfitted is None:
            self.state.unfitted = logits_of(self.model, self.material.labelled)
        return self.state

    def snapshot(self) -> dict[str, Tensor]:
        """Everything that the remaining steps depend on, as tensors."""
        state, moving = self.state, training_tensors(self.tunable, self.optimiser)
        kept = {name: tensor.cpu().clone() for name, tensor in moving.items()}
        kept["progress"] = torch.tensor([state.step, state.uniform_steps])
        kept["losses"] = torch.tensor(state.losses, dtype=torch.float64)
        if state.unfitted is not None:
            kept["unfitted"] = state.unfitted
        for i, (rows, weights) in enumerate(state.weighed):
            kept[f"rows/{i}"], kept[f"weights/{i}"] = torch.from_numpy(rows.copy()), torch.from_numpy(weights.copy())
        return kept

    def restore(self, kept: dict[str, Tensor]) -> None:
        """Take over a ``snapshot`` of the same recipe and material, which stays as it is."""
        take_over({name: tensor.clone() for name, tensor in kept.items()}, self.tunable, self.optimiser)
        steps, uniform = kept["progress"].tolist()
        weighed = range(sum(name.startswith("rows/") for name in kept))
        self.state = State(
            steps, kept["losses"].tolist(), uniform,
            [(kept[f"rows/{i}"].numpy(), kept[f"weights/{i}"].numpy()) for i in weighed], kept.get("unfitted"),
        )  # fmt: skip

    def _step(self, phase: Phase, index: int) -> float:
        self.model.train(self.recipe.dropout)
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate * (1 - self.state.step / self.recipe.steps)
        if self.recipe.dropout:
            seed_dropout(seed_for(self.recipe.seed, "dropout", self.state.step), self.parameters[0].device)
        self.optimiser.zero_grad(set_to_none=True)
        taken = self._take[phase](self, index)
        loss = taken.loss
        if self.recipe.auxiliary is not None:
            loss += self._guess(self.recipe.auxiliary, self._texts(phase, index))
        torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        with undisturbed():
            self.optimiser.step()
            self._count(taken, loss)
        return loss

    def _count(self, taken: Taken, loss: float) -> None:
        self.state.step += 1
        self.state.losses.append(loss)
        self.state.uniform_steps += taken.uniform
        if taken.weighed is not None:
            self.state.weighed.append(taken.weighed)

    def _labelled(self, index: int) -> Taken:
        rows = self.orders["labelled"][index]
        batch, gold = self._gold(rows)
        loss = self.model.head.labelled_loss(self.model(batch), gold)
        loss.backward()
        return Taken(loss.item())

    def _warmup(self, index: int) -> Taken:
        batch, soft = self._pseudo(self.orders["unlabelled"][index])
        sure = (soft.amax(-1) >= self.recipe.confidence).float()
        loss = (sure * kl(soft, self.model(batch))).mean()
        loss.backward()
        return Taken(loss.item())

    def _reweighted(self, index: int) -> Taken:
        rows = self.orders["unlabelled"][self._warm_steps + index]
        batch, soft = self._pseudo(rows)
        labelled, gold = self._gold(self.orders["meta"][index])
        step = Step(batch, soft, labelled, gold, self.recipe.eps, pads=self.model.row is None)
        done = ENGINES[self.recipe.engine](self.model, self.parameters, step)
        loss = float((done.weights * done.losses).sum())
        return Taken(loss, (rows, done.weights.cpu().numpy()), done.uniform)

    def _guess(self, auxiliary: Auxiliary, batch: Batch) -> float:
        """Adds the gradient of the auxiliary term, which meta weights thus know nothing of; returns its value."""
        term = auxiliary_term(self.model, batch, auxiliary, seed_for(self.recipe.seed, "auxiliary", self.state.step))
        if term is None:
            return 0.0
        term.backward()
        return term.item()

    def _texts(self, phase: Phase, index: int) -> Batch:
        """The texts of a step, whole; beside labelled ones as many unlabelled ones."""
        plain, warm = self.material.unlabelled, self._warm_steps if phase == "reweighted" else 0
        if phase in {"warmup", "reweighted"} and plain is not None:
            return plain.batch(self.orders["unlabelled"][warm + index])
        batch = self.material.labelled.batch(self.orders["labelled"][index])
        seed = seed_for(self.recipe.seed, "auxiliary texts", self.state.step)
        return batch if plain is None else accompanied(batch, plain, seed)

    _take: dict[Phase, Callable[[Trainer, int], Taken]] = {  # noqa: RUF012
        "labelled": _labelled,
        "tail": _labelled,
        "warmup": _warmup,
        "reweighted": _reweighted,
    }

    @property
    def _warm_steps(self) -> int:
        return dict(self.recipe.phases).get("warmup", 0)

    def _gold(self, rows: np.ndarray) -> tuple[Batch, Tensor]:
        device = self.parameters[0].device
        return self.material.labelled.batch(rows).to(device), self.material.gold[rows].to(device)

    def _pseudo(self, rows: np.ndarray) -> tuple[Batch, Tensor]:
        assert self.material.unlabelled is not None
        assert self.material.soft is not None
        device = self.parameters[0].device
        batch = self.material.unlabelled.batch(rows)
        if self.recipe.cutoff:
            seed = seed_for(self.recipe.seed, "cutoff", self.state.step)
            batch = batch.cut(self.recipe.cutoff, torch.Generator().manual_seed(seed))
        return batch.to(device), self.material.soft[rows].to(device)


def training_tensors(parameters: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The weights as ``weight/NAME`` and AdamW's moments as ``exp_avg/NAME`` and so on: no copies, but what moves."""
    found: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        found[f"weight/{name}"] = parameter.detach()
        found |= {f"{moment}/{name}": value.detach() for moment, value in optimiser.state.get(parameter, {}).items()}
    return found


@torch.no_grad()
def take_over(
    tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer
) -> None:
    """Sets weights and moments to what ``training_tensors`` gave; on the CPU, ``tensors`` become the optimiser's own.

    ValueError when names or shapes of the weights differ in any way.
    """
    weights = {name.removeprefix("weight/"): value for name, value in tensors.items() if name.startswith("weight/")}
    wrong = sorted(parameters.keys() ^ weights.keys())
    wrong = wrong or [name for name, own in parameters.items() if own.shape != weights[name].shape]
    if wrong:
        raise ValueError(f"saved tensors do not fit this training: {', '.join(wrong[:3])}")
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])
        moments = {moment: tensors[f"{moment}/{name}"] for moment in MOMENTS if f"{moment}/{name}" in tensors}
        if moments:
            # AdamW counts its steps on the CPU.
            optimiser.state[parameter] = {
                moment: value if moment == "step" else value.to(parameter.device) for moment, value in moments.items()
            }


def _orders(recipe: Recipe, material: Material) -> dict[str, list[np.ndarray]]:
    """The rows of every step, by what it reads."""
    counts = dict(recipe.phases)
    golden = counts.get("labelled", 0) + counts.get("tail", 0)
    rows = len(material.labelled)
    orders = {
        "labelled": epochs(rows, golden, min(recipe.labelled_batch, rows), generator_for(recipe.seed, "labelled")),
        "meta": epochs(
            rows, counts.get("reweighted", 0), min(recipe.meta_batch, rows), generator_for(recipe.seed, "meta")
        ),
    }
    steps = counts.get("warmup", 0) + counts.get("reweighted", 0)
    if material.unlabelled is not None and steps:
        lengths = material.unlabelled.lengths()
        orders["unlabelled"] = bucketed(lengths, steps, recipe.batch, generator_for(recipe.seed, "unlabelled"))
    return orders
