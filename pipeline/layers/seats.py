"""Where the tokens of a batch are once its padding is left out, and where they sit while they look at each other.

Everything but attention works on each token by itself, so it sees the real tokens of all texts in a row. For attention
the texts are laid side by side again, to a width that the processor's vectors divide: a softmax over 26 numbers in
bfloat16 takes four times as long as one over 32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.layers import SHAPED_LIKE_BERT

# Tokens of a batch are rounded up to a multiple: a kernel is compiled, and kept, for every number that it meets.
TOKENS_STEP = 32
# Numbers of a vector register of 64 bytes.
VECTOR = {torch.bfloat16: 32, torch.float16: 32, torch.float32: 16}


def seatable(backbone: Backbone) -> bool:
    """Whether its layers are of BERT's own shape, and so can run on tokens in a row."""
    return backbone.model.config.model_type in SHAPED_LIKE_BERT and not backbone.family.own


@dataclass(frozen=True)
class Layout:
    """Texts side by side, (B, W): ``laid`` (B * W,) is the token in each place, any one where there is none.

    ``hidden`` (B, 1, 1, W) are the places that nobody looks at, None where there are none.
    """

    texts: int
    laid: Tensor
    hidden: Tensor | None

    def of(self, tokens: Tensor) -> Tensor:
        """(B, W, D) of (N, D)."""
        return tokens.index_select(0, self.laid).unflatten(0, (self.texts, -1))

    def mask(self, dtype: torch.dtype) -> Tensor | None:
        """(B, 1, 1, W) to add to scores of ``dtype``: -inf where nobody looks; None where all places are looked at."""
        return None if self.hidden is None else to_add(self.hidden, dtype)


@dataclass(frozen=True)
class Seats:
    """Where the ``real`` tokens of a batch (B, T) are, there and in layouts for attention.

    ``places`` (N,) of the batch, N being rounded up with the first token; ``firsts`` (B,) where each text begins among
    these. ``whole`` is a layout of all texts; ``groups`` are layouts of texts of about the same length, as the time of
    attention grows with the square of it, and ``back`` (N,) is where each token is in these, one after the other.
    """

    attention: Tensor
    real: int
    places: Tensor
    firsts: Tensor
    whole: Layout
    groups: list[Layout]
    back: Tensor

    @staticmethod
    def of(attention: Tensor, multiple: int, visible: Tensor | None = None, grouped: bool = False) -> Seats:
        """Those of a right-padded batch, laid out to multiples of ``multiple`` tokens; in one group, or ``grouped``.

        All tokens can be looked at, or the ``visible`` (B, T) ones.
        """
        lengths = attention.sum(1)
        firsts = lengths.cumsum(0) - lengths
        widths = -(-lengths // multiple) * multiple
        seen = attention if visible is None else visible
        every = torch.arange(len(lengths))
        whole = _layout(every, int(widths.max()), lengths, firsts, seen)
        chosen = [(widths == width).nonzero().flatten() for width in widths.unique()] if grouped else [every]
        groups = [whole]
        if len(chosen) > 1:
            groups = [_layout(texts, int(widths[texts[0]]), lengths, firsts, seen) for texts in chosen]
        places = attention.flatten().nonzero().flatten()
        extra = torch.zeros(-len(places) % TOKENS_STEP, dtype=torch.int64)
        back = _back(groups, [lengths[texts] for texts in chosen], len(places))
        places, back = torch.cat([places, extra]), torch.cat([back, extra])
        return Seats(attention, len(places) - len(extra), places, firsts, whole, groups, back)

    def __len__(self) -> int:
        """B, the texts."""
        return len(self.attention)

    def tokens(self, hidden: Tensor) -> Tensor:
        """(N, D) of (B, T, D)."""
        return hidden.flatten(0, 1).index_select(0, self.places)

    def padded(self, tokens: Tensor) -> Tensor:
        """(B, T, D) of (N, D), 0 at padding."""
        found = tokens.new_zeros(self.attention.numel(), tokens.shape[1])
        places = self.places[: self.real]
        return found.index_copy_(0, places, tokens[: self.real]).unflatten(0, self.attention.shape)

    def taken_back(self, laid: list[Tensor]) -> Tensor:
        """(N, D) of (B, W, D) of every group."""
        flat = [part.flatten(0, 1) for part in laid]
        return (torch.cat(flat) if len(flat) > 1 else flat[0]).index_select(0, self.back)


def to_add(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """-inf where ``hidden`` is true and 0 elsewhere: to add it takes a third of the time of filling scores in."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))


def _layout(texts: Tensor, width: int, lengths: Tensor, firsts: Tensor, seen: Tensor) -> Layout:
    """Of ``texts``, to that width."""
    steps = torch.arange(width)
    is_token = steps < lengths[texts, None]
    shown = torch.zeros_like(is_token)
    most = min(width, seen.shape[1])
    shown[:, :most] = seen[texts, :most].bool()
    laid = torch.where(is_token, firsts[texts, None] + steps, 0).flatten()
    return Layout(len(texts), laid, None if bool(shown.all()) else ~shown[:, None, None, :])


def _back(groups: list[Layout], lengths: list[Tensor], tokens: int) -> Tensor:
    """(tokens,): where each is in ``groups``, of texts of these ``lengths``, one after the other."""
    back, start = torch.empty(tokens, dtype=torch.int64), 0
    for group, own in zip(groups, lengths, strict=True):
        laid = group.laid.unflatten(0, (group.texts, -1))
        is_token = torch.arange(laid.shape[1]) < own[:, None]
        back[laid[is_token]] = start + is_token.flatten().nonzero().flatten()
        start += laid.numel()
    return back
