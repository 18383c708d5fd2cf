"""The verbalizer head: masked-LM logits of the C label words at the mask position, and nothing else.

A trainable copy of the backbone's masked-LM head (dense, activation, LayerNorm) followed by only the C rows of
its decoder that belong to label words, so the full vocabulary projection is never computed. The rows are made of
the tied word embeddings, never looked up by checkpoint key.

A label word is what stands for a label: the word of its task file, or its tidied name. Where it is one token, its row
is copied; where it is several, the row starts at the mean of their rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from listflow.data.errors import InputError
from listflow.data.task import Task
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Batch
from listflow.pipeline.backbone.prompt import token_ids
from listflow.pipeline.method import tape
from listflow.pipeline.model.config import AnyHead, VerbalizerHead
from listflow.pipeline.model.label_names import known_pieces, label_words


class Verbalizer(nn.Module):
    """(B, D) features at the mask -> (B, C) logits in fp32."""

    reads_mask = True

    def __init__(
        self, config: VerbalizerHead, backbone: Backbone, word_ids: Sequence[Sequence[int]], generator: torch.Generator
    ) -> None:
        super().__init__()
        backbone.require_head("head verbalizer")
        model, family = backbone.model, backbone.family
        self.dense = _copy_linear(model.get_submodule(family.head_dense))
        self.norm = _copy_norm(model.get_submodule(family.head_norm))
        self.activation = F.gelu if family.head_activation == "gelu" else model.get_submodule(family.head_activation)
        self.words = tape.Linear(backbone.word_rows.shape[1], len(word_ids), device=backbone.device)
        self.words.weight = nn.Parameter(start_rows(backbone.word_rows, word_ids))
        self.words.bias = nn.Parameter(start_rows(model.get_parameter(family.decoder_bias), word_ids))
        self.requires_grad_(config.trained)

    @torch.no_grad()
    def centre(self, offset: Tensor) -> None:
        """Takes the mean logits ``offset`` (C,) off the start bias."""
        self.words.bias.sub_(offset.to(self.words.bias.device))

    def forward(self, at_mask: Tensor, batch: Batch) -> Tensor:
        return self.words(self.norm(self.activation(self.dense(at_mask.float()))))

    def labelled_loss(self, logits: Tensor, gold: Tensor) -> Tensor:
        """Cross-entropy of the label words, a scalar."""
        return F.cross_entropy(logits, gold)


def word_ids_for(head: AnyHead, task: Task, backbone: Backbone) -> tuple[tuple[int, ...], ...]:
    """As ``label_word_ids``; no token for any label where ``head`` reads no words.

    InputError also where ``head`` is not trained and two labels would start, and so stay, the same.
    """
    if not head.reads_words:
        return ((),) * len(task.labels)
    found = label_word_ids(task, backbone.tokenizer)
    if isinstance(head, VerbalizerHead) and not head.trained:
        _check_apart(task, start_rows(backbone.word_rows, found))
    return found


def label_word_ids(task: Task, tokenizer: Any) -> tuple[tuple[int, ...], ...]:
    """The tokens of each label's word that ``tokenizer`` knows, in label order; () for a word of which it knows none.

    InputError for two labels whose words are the same to it, unless they are one label in two cases.
    """
    words = label_words(task, tokenizer)
    read: dict[tuple[Any, ...], str] = {}
    for label, word in zip(task.labels, words, strict=True):
        ids = token_ids(tokenizer, f" {word}")
        # Unknown words are not the same word because they are the same unknown token.
        key = (*ids, word) if not ids or tokenizer.unk_token_id in ids else tuple(ids)
        first = read.setdefault(key, label)
        if first.casefold() != label.casefold():  # these start alike, and are told as likely one
            raise InputError(
                f"task '{task.name}': '{first}' and '{label}' are two labels of one name after tidying, '{word}'; "
                "give one of them another word in a task file."
            )
    return tuple(known_pieces(word, tokenizer) for word in words)


def start_rows(table: Tensor, word_ids: Sequence[Sequence[int]]) -> Tensor:
    """(C, ...) fp32 of ``table`` (V, ...): a word's own row, or the mean of the rows of its pieces.

    A word without any starts at the mean of the other words' rows; where no label has one, at that of the table.
    """
    flat = torch.tensor([i for ids in word_ids for i in ids], dtype=torch.long, device=table.device)
    pieces = table[flat].float().split([len(ids) for ids in word_ids])
    starts = [rows[0] if len(rows) == 1 else rows.mean(0) for rows in pieces]
    known = [start for start, rows in zip(starts, pieces, strict=True) if len(rows)]
    middle = torch.stack(known).mean(0) if known else table.float().mean(0)
    return torch.stack([start if len(rows) else middle for start, rows in zip(starts, pieces, strict=True)])


def word_notices(task: Task, tokenizer: Any) -> Iterator[str]:
    """A sentence on the words of several tokens, and one on those that ``tokenizer`` does not know, where there are."""
    words = [(word, len(known_pieces(word, tokenizer))) for word in label_words(task, tokenizer)]
    several, unknown = [w for w, pieces in words if pieces > 1], [w for w, pieces in words if not pieces]
    if several:
        have = "1 label has a name" if len(several) == 1 else f"{len(several)} labels have names"
        starts = "starts at the mean of its" if len(several) == 1 else "start at the mean of their"
        yield (
            f"{have} of several tokens, which {starts} pieces ({_such_as(several)}); a task file can name single words."
        )
    if unknown:
        have = "1 label has a name" if len(unknown) == 1 else f"{len(unknown)} labels have names"
        start = "starts" if len(unknown) == 1 else "start"
        yield (
            f"{have} that the backbone does not know, which {start} at the mean of the others ({_such_as(unknown)}); "
            "a task file can name words that it knows."
        )


def _such_as(words: Sequence[str]) -> str:
    return "such as " + " and ".join(f"'{word}'" for word in words[:2])


def _check_apart(task: Task, rows: Tensor) -> None:
    found: dict[bytes, str] = {}
    for label, row in zip(task.labels, rows.cpu(), strict=True):
        other = found.setdefault(row.numpy().tobytes(), label)
        if other != label:
            raise InputError(
                f"task '{task.name}': labels '{other}' and '{label}' start alike, as the backbone does not know a word "
                "of theirs, and stay alike with head.trained=false; give them words that it knows in a task file."
            )


M = TypeVar("M", bound=nn.Module)


def _copy_linear(source: nn.Module) -> tape.Linear:
    assert isinstance(source, nn.Linear)
    copied = tape.Linear(source.in_features, source.out_features, bias=source.bias is not None)
    return _copy_tensors(source, copied)


def _copy_norm(source: nn.Module) -> tape.LayerNorm:
    assert isinstance(source, nn.LayerNorm)
    shape = tuple(source.normalized_shape)
    return _copy_tensors(source, tape.LayerNorm(shape, eps=source.eps, bias=source.bias is not None))


def _copy_tensors(source: nn.Module, copied: M) -> M:
    copied.to(next(source.parameters()).device)
    copied.load_state_dict({name: value.float() for name, value in source.state_dict().items()})
    return copied.requires_grad_(True)
