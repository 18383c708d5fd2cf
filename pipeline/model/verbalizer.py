"""The verbalizer head: masked-LM logits of the C label words at the mask position, and nothing else.

A trainable copy of the backbone's masked-LM head (dense, activation, LayerNorm) followed by only the C rows of
its decoder that belong to label words, so the full vocabulary projection is never computed. The rows are copied
from the tied word embeddings, never looked up by checkpoint key.

A label word is the one token that stands for a label: checked, or chosen where a task names none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


class Verbalizer(nn.Module):
    """(B, D) features at the mask -> (B, C) logits in fp32."""

    reads_mask = True

    def __init__(
        self, config: VerbalizerHead, backbone: Backbone, word_ids: Sequence[int], generator: torch.Generator
    ) -> None:
        super().__init__()
        backbone.require_head("head verbalizer")
        model, family = backbone.model, backbone.family
        self.dense = _copy_linear(model.get_submodule(family.head_dense))
        self.norm = _copy_norm(model.get_submodule(family.head_norm))
        self.activation = F.gelu if family.head_activation == "gelu" else model.get_submodule(family.head_activation)
        ids = torch.as_tensor(word_ids, device=backbone.device)
        bias = model.get_parameter(family.decoder_bias)[ids].float()
        self.words = tape.Linear(backbone.word_rows.shape[1], len(word_ids), device=backbone.device)
        self.words.weight = nn.Parameter(backbone.word_rows[ids].float().clone())
        self.words.bias = nn.Parameter(bias.clone())
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


def word_ids_for(head: AnyHead, task: Task, backbone: Backbone) -> tuple[int, ...]:
    """As ``label_word_ids``; the unknown token for every label where ``head`` reads no words."""
    if not head.reads_words:
        return (backbone.tokenizer.unk_token_id,) * len(task.labels)
    return tuple(label_word_ids(task, backbone.tokenizer, backbone.word_rows))


def label_word_ids(task: Task, tokenizer: Any, word_rows: Tensor) -> list[int]:
    """The token id of each label's word, in label order.

    InputError for a label without a word, a word of several tokens, or two labels with one word; each with a
    suggestion that works with this tokenizer.
    """
    ids: dict[int, str] = {}
    for label, word in task.labels.items():
        pieces = token_ids(tokenizer, " " + (word or label))
        if len(pieces) != 1 or pieces[0] == tokenizer.unk_token_id:
            raise InputError(_word_problem(task, label, word, pieces, tokenizer, word_rows, set(ids)))
        if pieces[0] in ids:
            raise InputError(
                f"task '{task.name}': labels '{ids[pieces[0]]}' and '{label}' share the word '{word or label}'; "
                "give each its own."
            )
        ids[pieces[0]] = label
    return list(ids)


def fill_in_words(task: Task, tokenizer: Any, word_rows: Tensor) -> tuple[Task, tuple[str, ...]]:
    """(``task`` with a single-token word for every label that had none, a notice for each word that was chosen)."""
    words: dict[str, str | None] = {}
    notices = []
    for label, word in task.labels.items():
        taken = {token_ids(tokenizer, f" {w}")[0] for w in words.values()}
        words[label] = word or suggest_words(label, tokenizer, word_rows, taken)[0]
        if words[label] != (word or label.lower()):
            notices.append(f"label '{label}' is read as the word '{words[label]}'; a task file can name another.")
    return task.model_copy(update={"labels": words}), tuple(notices)


def suggest_words(text: str, tokenizer: Any, rows: Tensor, taken: Iterable[int], count: int = 4) -> list[str]:
    """Up to ``count`` single-token words for ``text``: its own words first, then the nearest by mean word embedding.

    ``rows``: the (V, D) word embeddings; ``taken``: token ids that are no choice.
    """
    taken = {*taken, tokenizer.unk_token_id}
    own = [w for w in text.lower().replace("/", " ").replace("_", " ").replace("-", " ").split() if w.isalpha()]
    found = [w for w in own if len(w) > 2 and len(ids := token_ids(tokenizer, " " + w)) == 1 and ids[0] not in taken]
    pieces = token_ids(tokenizer, " " + " ".join(own or [text]))
    query = rows[pieces].float().mean(0)
    order = F.cosine_similarity(rows.float(), query, dim=-1).argsort(descending=True)
    for token in order[:2000].tolist():
        word = tokenizer.decode([token]).strip().lower()
        fits = word.isalpha() and len(word) > 2 and token_ids(tokenizer, " " + word) == [token]
        if len(found) < count and fits and token not in taken and word not in found:
            found.append(word)
    return found


def _word_problem(
    task: Task, label: str, word: str | None, pieces: list[int], tokenizer: Any, rows: Tensor, taken: set[int]
) -> str:
    what = f"label word '{word}' of label '{label}'" if word else f"label '{label}' has no label word, and its name"
    shown = " ".join(tokenizer.convert_ids_to_tokens(pieces)) or "nothing"
    wrong = (
        "is unknown to the backbone" if len(pieces) == 1 else f"is {len(pieces)} tokens ({shown}) where one is needed"
    )
    words = suggest_words(word or label, tokenizer, rows, taken)
    return (
        f"task '{task.name}': {what} {wrong}; "
        f'set labels: {{"{label}": {words[0]}}} in the task file, or try {", ".join(words[1:])}.'
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
