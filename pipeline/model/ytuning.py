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

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Batch
from listflow.pipeline.method import tape
from listflow.pipeline.model.config import YTuningHead
from listflow.pipeline.model.verbalizer import start_rows


class YTuning(nn.Module):
    """(B, T, D) features -> (B, C) logits in fp32: scores over the temperature.

    What is added to the rows is computed in the precision of the backbone; the rows themselves and the scores are fp32.
    """

    reads_mask = False

    def __init__(
        self, config: YTuningHead, backbone: Backbone, word_ids: Sequence[Sequence[int]], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.config, self.classes = config, len(word_ids)
        width = _width(config, backbone)
        fits = width == backbone.hidden_size
        self.into: nn.Module = nn.Identity() if fits else tape.Linear(backbone.hidden_size, width)
        blocks = [Block(width, config.heads) for _ in range(config.blocks)]
        self.blocks = nn.ModuleList(blocks)
        self.text_norm, self.norm = tape.LayerNorm(width), tape.LayerNorm(width)
        self.task = nn.Parameter(torch.empty(1, width))
        self.labels = nn.Parameter(torch.empty(self.classes * config.vectors, width))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for block in blocks:
            block.start()
        self._start(backbone, word_ids, generator)

    @torch.no_grad()
    def _start(self, backbone: Backbone, word_ids: Sequence[Sequence[int]], generator: torch.Generator) -> None:
        """Label vectors from the label words, as the features are brought in; or at random."""
        self.task.normal_(std=0.02, generator=generator)
        if self.config.start == "uniform":
            self.labels.uniform_(-0.1, 0.1, generator=generator)
            return
        self.labels.normal_(std=0.02, generator=generator)
        if self.config.start == "words":
            words = start_rows(backbone.word_rows, word_ids).cpu()
            if words.shape[1] == backbone.hidden_size:
                self.labels[:: self.config.vectors] += F.layer_norm(self.into(words), (self.labels.shape[1],))

    def forward(self, features: Tensor, batch: Batch) -> Tensor:
        text = self.text_norm(self.into(features))
        like = text[:, 0].float()
        start = [tape.per_row(vectors, like) for vectors in (self.task, self.labels)]
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
        """Triplet loss, or cross-entropy; a scalar: the mean over the batch's classes, or over its rows."""
        if self.config.loss == "cross_entropy":
            each = F.cross_entropy(logits, gold, reduction="none")
        else:
            each = triplet(logits * self.config.temperature, gold, self.config.margin)
        return class_mean(each, gold) if self.config.balanced else each.mean()


def triplet(scores: Tensor, gold: Tensor, margin: float) -> Tensor:
    """(B,): the mean over wrong classes of [margin - s_gold + s_c]+ for scores (B, C)."""
    right = scores.gather(1, gold.unsqueeze(1))
    gaps = (margin - right + scores).clamp_min(0)
    wrong = torch.ones_like(scores).scatter(1, gold.unsqueeze(1), 0.0)
    return (gaps * wrong).sum(1) / wrong.sum(1)


def class_mean(each: Tensor, gold: Tensor) -> Tensor:
    """The mean over the classes in ``gold`` of the mean of ``each`` (B,) over the rows of a class."""
    weights = 1 / torch.bincount(gold)[gold]
    return (weights * each).sum() / weights.sum()


def _width(config: YTuningHead, backbone: Backbone) -> int:
    width = config.width or backbone.hidden_size
    if width % config.heads:
        raise InputError(
            f"a head of width {width} cannot be divided among {config.heads}; set head.heads or head.width."
        )
    return width


class Block(nn.Module):
    """Labels look at each other, then at the text, then through a feed-forward; each reads normalised rows.

    LayerNorm comes first: with it last, a fresh decoder collapses to one class at the rates that a few labels need.
    A fresh block adds the mean of the text's rows to every label and does nothing else, so that training begins at a
    linear classifier of pooled features; from a block at random a few labels do not get that far.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.own, self.cross = Attention(width, heads), Reading(width, heads)
        self.wide, self.back = tape.Linear(width, 4 * width), tape.Linear(4 * width, width)
        self.norms = nn.ModuleList(tape.LayerNorm(width) for _ in range(3))

    @torch.no_grad()
    def start(self) -> None:
        """No word between labels yet and no feed-forward; of the text its mean."""
        for silent in (self.own.out, self.back):
            silent.weight.zero_()
            silent.bias.zero_()
        self.cross.start()

    def forward(self, rows: Tensor, text: Tensor, seen: Tensor) -> Tensor:
        low = text.dtype
        rows = rows + self.own(self.norms[0](rows).to(low))
        rows = rows + self.cross(self.norms[1](rows).to(low), text, seen)
        found: Tensor = rows + self.back(F.gelu(self.wide(self.norms[2](rows).to(low))))
        return found


class Reading(nn.Module):
    """Multi-head attention of a few label rows on a long text.

    q (K x_t) = (K^T q) x_t, and sum_t a_t V x_t = V sum_t a_t x_t: with both matrices on the side of the few rows, no
    matrix is applied to every token. A key needs no bias, as softmax does not see it.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.size = width // heads
        self.query, self.out = tape.Linear(width, width), tape.Linear(width, width)
        self.keys = nn.ModuleList(tape.Linear(self.size, width, bias=False) for _ in range(heads))
        self.values = nn.ModuleList(tape.Linear(width, self.size) for _ in range(heads))

    def start(self) -> None:
        """Uniform attention, on the text as it is."""
        whole = torch.eye(self.out.in_features)
        parts = zip(self.values, whole.split(self.size), strict=True)
        for linear, weight in ((self.query, 0 * whole), (self.out, whole), *parts):
            linear.load_state_dict({"weight": weight, "bias": torch.zeros(len(weight))})

    def forward(self, rows: Tensor, text: Tensor, seen: Tensor) -> Tensor:
        """(B, N, W) for ``rows`` (B, N, W) over ``text`` (B, T, W), of which ``seen`` (B, T) count."""
        queries = self.query(rows).split(self.size, -1)
        asked = torch.cat([key(query) for key, query in zip(self.keys, queries, strict=True)], 1)
        scores = (asked @ text.transpose(1, 2)).float() * self.size**-0.5
        weights = scores.masked_fill(~seen.unsqueeze(1).bool(), float("-inf")).softmax(-1)
        read = (weights.to(text.dtype) @ text).split(rows.shape[1], 1)
        return self.out(torch.cat([value(part) for value, part in zip(self.values, read, strict=True)], -1))


class Attention(nn.Module):
    """Multi-head attention among label rows, written out: fused kernels have no forward-mode derivative."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (tape.Linear(width, width) for _ in range(4))

    def forward(self, rows: Tensor) -> Tensor:
        """(B, N, W) of ``rows`` (B, N, W)."""
        query, key, value = (
            part(rows).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
        return self.out((weights @ value).transpose(1, 2).flatten(2))
