"""Per-example gradients without a second-order graph.

A trainable linear map y = x W^T + c needs only its input x_i and the gradient d_i at its output to know the
gradient of any single example: grad_W l_i = d_i^T x_i. While a ``Tape`` is recording, the layers of this file
use detached weights and remember (x, y); one ``torch.autograd.grad`` with respect to the y then gives every
d_i of a batch at once. Small tensors (LayerNorm weights, label biases) are expanded over the batch instead, so
that autograd itself returns one gradient per example; so are tensors that a module makes of its parameters alone,
and J and J^T of that module carry the gradients to its parameters.

Where the tokens of all texts stand in a row, what flows is (1, N, ...) in the place of (B, T, ...), and the tape knows
whose each token is.

Outside a recording the layers are ordinary ``nn`` layers. They cast their fp32 weights to the dtype of what
flows in, so one set of fp32 trainable tensors serves an fp32 or a bf16 backbone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Tape:
    """What the trainable tensors met in one forward pass."""

    linear: list[Seen] = field(default_factory=list)
    small: list[tuple[nn.Parameter, Tensor]] = field(default_factory=list)
    generated: list[Generated] = field(default_factory=list)
    row: Row | None = None

    @property
    def watched(self) -> list[Tensor]:
        """The tensors whose gradients tell everything: outputs of linear maps, then small ones, then generated."""
        small = [copies for _, copies in self.small]
        return [seen.y for seen in self.linear] + small + [made.copies for made in self.generated]

    def sorted(self, gradients: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Gradients of ``watched``, by kind."""
        first, second = len(self.linear), len(self.linear) + len(self.small)
        return gradients[:first], gradients[first:second], gradients[second:]

    def row_of(self, x: Tensor) -> Row | None:
        """Whose tokens ``x`` has, if it is (1, N, ...); None for one that is (B, ...)."""
        return self.row if len(x) == 1 else None


@dataclass
class Row:
    """Tokens of B > 1 texts in a row: (N,) whose each is, and the B + 1 places where these begin and the last ends.

    Parts of it are cut at multiples of ``step``, which N is too: for every other number of tokens a processor would
    compile, and keep, kernels of its own.
    """

    owner: Tensor
    ends: list[int]
    step: int

    def first(self, x: Tensor, size: int) -> Tensor:
        """Of ``x`` (1, N, ...) the tokens of the first ``size`` texts, and of the next one up to a whole step."""
        return x[0, : -(-self.ends[size] // self.step) * self.step]

    def last(self, x: Tensor, size: int) -> Tensor:
        """Of ``x`` (1, N, ...) all tokens but those of the first ``size`` texts, which are left in to a whole step."""
        return x[0, self.ends[size] // self.step * self.step :]

    def spread(self, weights: Tensor) -> Tensor:
        """(n,): for the tokens of ``first`` the weight (B',) of their text, and 0 for those of the next one."""
        own = weights[self.owner[: self.ends[len(weights)]]]
        return F.pad(own, (0, -len(own) % self.step))

    def alone(self, values: Tensor, size: int) -> Tensor:
        """``values`` (n, ...) of ``last``, and 0 for the texts that are left in."""
        strange = self.ends[size] % self.step
        return torch.cat([torch.zeros_like(values[:strange]), values[strange:]]) if strange else values

    def sums(self, values: Tensor, size: int) -> Tensor:
        """(size,): sums of ``values`` (n,) of ``first`` by text."""
        own = self.owner[: self.ends[size]]
        return values.new_zeros(size).index_add_(0, own, values[: len(own)])


@dataclass
class Seen:
    """One use of one trainable linear map: input (B, ..., in), watched output (B, ..., out)."""

    weight: Tensor
    bias: Tensor | None
    x: Tensor
    y: Tensor


@dataclass
class Generated:
    """A tensor made from ``parameters`` alone, such as a prefix through an MLP: with its graph, and a copy a row."""

    source: Tensor
    parameters: tuple[nn.Parameter, ...]
    copies: Tensor

    def pull(self, gradient: Tensor) -> list[Tensor]:
        """J^T ``gradient``: from the source to each of the parameters."""
        return list(torch.autograd.grad(self.source, self.parameters, gradient, retain_graph=True))

    def push(self, towards: list[Tensor]) -> Tensor:
        """J ``towards``: from the parameters to the source, by two reverse passes, which every module has."""
        seed = torch.zeros_like(self.source, requires_grad=True)
        pulled = torch.autograd.grad(self.source, self.parameters, seed, create_graph=True)
        total = torch.stack([(p * t).sum() for p, t in zip(pulled, towards, strict=True)]).sum()
        return torch.autograd.grad(total, seed)[0]


_RECORDING: ContextVar[Tape | None] = ContextVar("recording", default=None)


@contextmanager
def recording() -> Iterator[Tape]:
    """A fresh ``Tape`` that the layers of this file write to until the block ends."""
    token = _RECORDING.set(Tape())
    try:
        tape = _RECORDING.get()
        assert tape is not None
        yield tape
    finally:
        _RECORDING.reset(token)


def in_a_row(lengths: Tensor, step: int) -> None:
    """Tells a recording tape that tokens of texts of ``lengths`` (B,) stand in a row, up to a multiple of ``step``.

    Of the ones that fill it up nothing is read, and their gradients are 0.
    """
    tape = _RECORDING.get()
    if tape is None or len(lengths) == 1:
        return
    ends = [0, *lengths.cumsum(0).tolist()]
    owner = torch.arange(len(lengths)).repeat_interleave(lengths)
    tape.row = Row(torch.cat([owner, owner[-1:].expand(-ends[-1] % step)]), ends, step)


class Linear(nn.Linear):
    """``nn.Linear`` whose per-example gradients a tape can recover."""

    def forward(self, x: Tensor) -> Tensor:
        tape = _RECORDING.get()
        weight = self.weight.to(x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if tape is None or not self.weight.requires_grad:
            return F.linear(x, weight, bias)
        y = F.linear(x, weight.detach(), None if bias is None else bias.detach())
        if not y.requires_grad:
            y.requires_grad_()
        tape.linear.append(Seen(self.weight, self.bias, x.detach(), y))
        return y


class LayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` whose weight and bias are expanded over the batch while a tape records."""

    def forward(self, x: Tensor) -> Tensor:
        normed = F.layer_norm(x, self.normalized_shape, eps=self.eps)
        y = normed * per_example(self.weight, x)
        return y if self.bias is None else y + per_example(self.bias, x)


def per_example(parameter: nn.Parameter, x: Tensor) -> Tensor:
    """As ``per_row``, shaped to broadcast against the last dimensions of ``x``, (B, ...) or (1, N, ...)."""
    tape = _RECORDING.get()
    row = None if tape is None or not parameter.requires_grad else tape.row_of(x)
    if tape is None or row is None:
        rows = per_row(parameter, x)
        return rows.reshape(len(rows), *[1] * (x.dim() - 1 - parameter.dim()), *parameter.shape)
    spread = _copies(tape, parameter, x.dtype, len(row.ends) - 1).index_select(0, row.owner)
    return spread.reshape(1, len(spread), *[1] * (x.dim() - 2 - parameter.dim()), *parameter.shape)


def per_row(parameter: nn.Parameter, x: Tensor) -> Tensor:
    """(1, ...) ``parameter`` itself, or (B, ...) one watched copy for each row of ``x``."""
    tape = _RECORDING.get()
    if tape is None or not parameter.requires_grad:
        return parameter.to(x.dtype).unsqueeze(0)
    return _copies(tape, parameter, x.dtype, len(x))


def _copies(tape: Tape, parameter: nn.Parameter, dtype: torch.dtype, rows: int) -> Tensor:
    value = parameter.detach().to(dtype).unsqueeze(0)
    copies = value.repeat(rows, *[1] * parameter.dim()).requires_grad_()
    tape.small.append((parameter, copies))
    return copies


def generated(source: Tensor, parameters: Iterable[nn.Parameter], x: Tensor) -> Tensor:
    """(1, ...) ``source``, which ``parameters`` gave without seeing the batch, or (B, ...) watched copies of it."""
    tape = _RECORDING.get()
    if tape is None:
        return source.to(x.dtype).unsqueeze(0)
    copies = source.detach().to(x.dtype).repeat(x.shape[0], *[1] * source.dim()).requires_grad_()
    tape.generated.append(Generated(source, tuple(parameters), copies))
    return copies


def per_example_dots(tape: Tape, gradients: list[Tensor], size: int, target: dict[Tensor, Tensor]) -> Tensor:
    """s (B,): <grad l_i, G> for the first ``size`` rows, where G is the ``target`` of ``summed_gradients``.

    ``gradients`` are those of ``tape.watched``. A tensor used several times in one forward pass counts with the sum of
    its uses, on both sides.
    """
    scores = torch.zeros(size, device=gradients[0].device)
    d_linear, d_small, d_made = tape.sorted(gradients)
    for seen, d in zip(tape.linear, d_linear, strict=True):
        row, towards = tape.row_of(d), target[seen.weight]
        d_u, x_u = (x[:size] if row is None else row.first(x, size) for x in (d, seen.x))
        # d . (G x) = (d G) . x: the narrower of the two is the cheaper intermediate.
        narrow_out = towards.shape[0] <= towards.shape[1]
        product = d_u * (x_u @ towards.T) if narrow_out else (d_u @ towards) * x_u
        scores += _sums(product, size, row)
        if seen.bias is not None:
            scores += _sums(d_u @ target[seen.bias], size, row)
    for (parameter, _), d in zip(tape.small, d_small, strict=True):
        folded = _fold(d[:size].float(), parameter)
        scores += (folded * target[parameter]).reshape(size, -1).sum(1)
    for made, d in zip(tape.generated, d_made, strict=True):
        moved = made.push([target[parameter] for parameter in made.parameters])
        scores += (d[:size].to(moved.dtype) * moved).reshape(size, -1).sum(1)
    return scores


def weighted_gradients(tape: Tape, gradients: list[Tensor], weights: Tensor) -> dict[Tensor, Tensor]:
    """sum_i w_i grad l_i over the first len(weights) rows, for every parameter on the tape.

    ``gradients`` are those of ``tape.watched``.
    """
    size, total = len(weights), dict[Tensor, Tensor]()
    d_linear, d_small, d_made = tape.sorted(gradients)
    for seen, d in zip(tape.linear, d_linear, strict=True):
        row = tape.row_of(d)
        d_u, x_u = (x[:size] if row is None else row.first(x, size) for x in (d, seen.x))
        own = (weights if row is None else row.spread(weights)).to(d.dtype)
        scaled = _rows(d_u * own.reshape(-1, *[1] * (d_u.dim() - 1)))
        _add(total, seen.weight, (scaled.T @ _rows(x_u)).float())
        if seen.bias is not None:
            _add(total, seen.bias, scaled.sum(0).float())
    for (parameter, _), d in zip(tape.small, d_small, strict=True):
        _add(total, parameter, torch.einsum("b,b...->...", weights, _fold(d[:size].float(), parameter)))
    for made, d in zip(tape.generated, d_made, strict=True):
        summed = torch.einsum("b,b...->...", weights, d[:size].float()).to(made.source.dtype)
        for parameter, gradient in zip(made.parameters, made.pull(summed), strict=True):
            _add(total, parameter, gradient)
    return total


def summed_gradients(passes: Iterable[tuple[Tape, list[Tensor], int]]) -> dict[Tensor, Tensor]:
    """G: the gradient of some rows, summed, for every parameter that they met.

    Of each pass its tape, the gradients of ``tape.watched``, and the first of the rows.
    """
    total: dict[Tensor, Tensor] = {}
    for tape, gradients, first in passes:
        d_linear, d_small, d_made = tape.sorted(gradients)
        for seen, d in zip(tape.linear, d_linear, strict=True):
            row = tape.row_of(d)
            x_v = _rows(seen.x[first:]) if row is None else row.last(seen.x, first)
            d_v = _rows(d[first:]) if row is None else row.alone(row.last(d, first), first)
            _add(total, seen.weight, d_v.T @ x_v)
            if seen.bias is not None:
                _add(total, seen.bias, d_v.sum(0))
        for (parameter, _), d in zip(tape.small, d_small, strict=True):
            _add(total, parameter, _fold(d[first:].float(), parameter).sum(0))
        for made, d in zip(tape.generated, d_made, strict=True):
            pulled = made.pull(d[first:].to(made.source.dtype).sum(0))
            for parameter, gradient in zip(made.parameters, pulled, strict=True):
                _add(total, parameter, gradient)
    return total


def _sums(values: Tensor, size: int, row: Row | None) -> Tensor:
    """(size,) fp32: sums of ``values`` (B', ...), or (n, ...) of tokens in a row, by text."""
    each = values.reshape(len(values) if row else size, -1).sum(1, dtype=torch.float32)
    return row.sums(each, size) if row else each


def _rows(x: Tensor) -> Tensor:
    """(B, ..., n) as (rows, n)."""
    return x.reshape(-1, x.shape[-1])


def _fold(d: Tensor, parameter: nn.Parameter) -> Tensor:
    """Gradients of a small tensor's copies, (B, ...) in the shape of the tensor."""
    return d.reshape(d.shape[0], *parameter.shape)


def _add(total: dict[Tensor, Tensor], parameter: Tensor, value: Tensor) -> None:
    total[parameter] = total[parameter] + value if parameter in total else value
