"""Y-tuning: the text encoder stays as it is, and the labels learn to read it (arXiv 2202.09817).

Rows [task; label 1 (K vectors); ...; label C] look at each other, then at the text's features, through decoder
blocks without positions, so scores follow the labels when these are permuted. The score of a class is how well its
pooled output fits the task row's. What the paper leaves open (score, margin, depth) is in the config, and
docs/stages.md says which reading was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.errors import InputError
from pipeline import tape
from pipeline.backbone import Backbone
from pipeline.batch import Batch
from pipeline.head_config import YTuningHead


class Attention(nn.Module):
    """Multi-head attention written out: forward-mode derivatives have no rule for the fused kernels."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (tape.Linear(width, width) for _ in range(4))

    def forward(self, asking: Tensor, given: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, N, W) for ``asking`` (B, N, W) over ``given`` (B, T, W), of which ``seen`` (B, T) count.

        Text comes in the precision of the backbone, and what is done to every token of it stays there.
        """
        query, key, value = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (self.query(asking), self.key(given), self.value(given))
        )
        scores = (query.to(key.dtype) @ key.transpose(-1, -2)).float() * query.shape[-1] ** -0.5
        if seen is not None:
            scores = scores.masked_fill(~seen[:, None, None].bool(), float("-inf"))
        mixed = scores.softmax(-1).to(value.dtype) @ value
        return self.out(mixed.transpose(1, 2).flatten(2).to(asking.dtype))


class Block(nn.Module):
    """Labels look at each other, then at the text, then through a feed-forward; each reads normalised rows.

    LayerNorm comes first: with it last, a fresh decoder collapses to one class at the rates that a few labels need.
    A fresh block adds the mean of the text's rows to every label and does nothing else, so that training begins at a
    linear classifier of pooled features; from a block at random a few labels do not get that far.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.own, self.cross = Attention(width, heads), Attention(width, heads)
        self.wide, self.back = tape.Linear(width, 4 * width), tape.Linear(4 * width, width)
        self.norms = nn.ModuleList(tape.LayerNorm(width) for _ in range(3))

    @torch.no_grad()
    def start(self) -> None:
        """Uniform attention on the text as it is; no word between labels yet, and no feed-forward."""
        for silent in (self.own.out, self.back, self.cross.query):
            silent.weight.zero_()
            silent.bias.zero_()
        for plain in (self.cross.value, self.cross.out):
            nn.init.eye_(plain.weight)
            plain.bias.zero_()

    def forward(self, rows: Tensor, text: Tensor, seen: Tensor) -> Tensor:
        normed = self.norms[0](rows)
        rows = rows + self.own(normed, normed)
        rows = rows + self.cross(self.norms[1](rows), text, seen)
        found: Tensor = rows + self.back(F.gelu(self.wide(self.norms[2](rows))))
        return found


class YTuning(nn.Module):
    """(B, T, D) features -> (B, C) logits in fp32: scores over the temperature."""

    reads_mask = False

    def __init__(
        self, config: YTuningHead, backbone: Backbone, word_ids: Sequence[int], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.config, self.classes = config, len(word_ids)
        width = _width(config, backbone)
        self.into = tape.Linear(backbone.hidden_size, width)
        blocks = [Block(width, config.heads) for _ in range(config.blocks)]
        self.blocks = nn.ModuleList(blocks)
        self.text_norm, self.norm = tape.LayerNorm(width), tape.LayerNorm(width)
        self.task = nn.Parameter(torch.empty(1, width))
        self.labels = nn.Parameter(torch.empty(self.classes * config.vectors, width))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
        nn.init.orthogonal_(self.into.weight, generator=generator)
        if width == backbone.hidden_size:
            nn.init.eye_(self.into.weight)
        for block in blocks:
            block.start()
        self._start(backbone, word_ids, generator)

    @torch.no_grad()
    def _start(self, backbone: Backbone, word_ids: Sequence[int], generator: torch.Generator) -> None:
        """Label vectors from the label words, as the features are brought in; or at random."""
        self.task.normal_(std=0.02, generator=generator)
        if self.config.start == "uniform":
            self.labels.uniform_(-0.1, 0.1, generator=generator)
            return
        self.labels.normal_(std=0.02, generator=generator)
        if self.config.start == "words":
            words = backbone.word_rows[list(word_ids)].float().cpu()
            if words.shape[1] == self.into.in_features:
                self.labels[:: self.config.vectors] += F.layer_norm(self.into(words), (self.labels.shape[1],))

    def forward(self, features: Tensor, batch: Batch) -> Tensor:
        text = self.text_norm(self.into(features))
        start = [tape.per_row(vectors, text).float() for vectors in (self.task, self.labels)]
        rows = torch.cat(start, 1).expand(len(text), -1, -1)
        for block in self.blocks:
            rows = block(rows, text, batch.attended)
        rows = self.norm(rows)
        task, labels = rows[:, :1], rows[:, 1:].unflatten(1, (self.classes, self.config.vectors))
        pooled = labels.mean(2) if self.config.pool == "mean" else labels.amax(2)
        return self._scores(task, pooled) / self.config.temperature

    def _scores(self, task: Tensor, labels: Tensor) -> Tensor:
        """(B, C): higher is nearer."""
        if self.config.score == "cosine":
            return F.cosine_similarity(task, labels, dim=-1)
        if self.config.score == "distance":
            return -(task - labels).square().sum(-1).add(1e-12).sqrt()
        dots = (task * labels).sum(-1)
        return dots if self.config.score == "dot" else dots * task.shape[-1] ** -0.5

    def labelled_loss(self, logits: Tensor, gold: Tensor) -> Tensor:
        """Triplet loss: the mean over wrong classes of [margin - s_gold + s_c]+, or cross-entropy; a scalar."""
        if self.config.loss == "cross_entropy":
            return F.cross_entropy(logits, gold)
        return triplet(logits * self.config.temperature, gold, self.config.margin)


def _width(config: YTuningHead, backbone: Backbone) -> int:
    width = config.width or backbone.hidden_size
    if width % config.heads:
        raise InputError(
            f"a head of width {width} cannot be divided among {config.heads}; set head.heads or head.width."
        )
    return width


def triplet(scores: Tensor, gold: Tensor, margin: float) -> Tensor:
    """Mean over rows and wrong classes of [margin - s_gold + s_c]+ for scores (B, C)."""
    right = scores.gather(1, gold.unsqueeze(1))
    gaps = (margin - right + scores).clamp_min(0)
    wrong = torch.ones_like(scores).scatter(1, gold.unsqueeze(1), 0.0)
    return (gaps * wrong).sum() / wrong.sum()
