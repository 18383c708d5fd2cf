"""P-tuning: trained vectors in the place of word embeddings, made by a small encoder (arXiv 2103.10385).

h_i = MLP([forward LSTM_i : backward LSTM_i]) over a sequence of trained embeddings (eq. 5). The encoder sees no text,
so a finished model keeps h alone. Without an encoder it is a plain soft prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle, islice, pairwise

import torch
from torch import Tensor, nn

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.prompt import token_ids
from listflow.pipeline.method import tape
from listflow.pipeline.stages.config import PTuning
from listflow.pipeline.stages.prompt_start import start_from

LSTM_LAYERS = 2  # as in the authors' code


def attach(view: nn.Module, depth: int, backbone: Backbone, config: PTuning, generator: torch.Generator) -> nn.Module:
    """The ``SoftPrompt`` whose vectors now stand for negative token ids in ``view``, which holds all layers."""
    if config.aux_weight:
        backbone.require_head("stage.aux_weight")
    prompt = SoftPrompt(config, _start(backbone, config, generator), generator)
    insert(prompt, view, backbone)
    return prompt


def insert(prompt: nn.Module, view: nn.Module, backbone: Backbone) -> None:
    """Lets ``prompt``, which gives (1 or B, n, E) for a tensor like them, stand for negative token ids in ``view``."""
    words = {name: module for name, module in view.named_modules() if isinstance(module, nn.Embedding)}
    path = next(name for name, module in words.items() if module.weight is backbone.word_rows)
    view.set_submodule(path, WithPseudoTokens(words[path], prompt))


class WithPseudoTokens(nn.Module):
    """Token ids (B, T) -> (B, T, E): word embeddings, and for an id of -i the i-th vector of ``prompt``."""

    def __init__(self, inner: nn.Embedding, prompt: nn.Module) -> None:
        super().__init__()
        self.inner, self.prompt = inner, prompt

    def forward(self, ids: Tensor) -> Tensor:
        words = self.inner(ids.clamp(min=0))
        # By gather and where: forward-mode differentiation has no rule for assignment under a boolean mask.
        rows = (-1 - ids).clamp(min=0).unsqueeze(-1).expand_as(words)
        vectors = self.prompt(words).expand(len(ids), -1, -1).gather(1, rows)
        return torch.where((ids < 0).unsqueeze(-1), vectors, words)


class SoftPrompt(nn.Module):
    """The vectors of n pseudo tokens, from trained embeddings (n, E) through the encoder of ``config``."""

    def __init__(self, config: PTuning, start: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(start)
        self.encoder = _encoder(config, start.shape[1], generator)

    def forward(self, like: Tensor) -> Tensor:
        """(1 or B, n, E)."""
        if self.encoder is None:
            return tape.per_row(self.embedding, like)
        return tape.generated(self.encoder(self.embedding), self.parameters(), like)

    @torch.no_grad()
    def flat(self) -> tuple[PTuning, dict[str, Tensor]]:
        """(config, tensors) of a stage without encoder that gives the same logits: what predicting needs."""
        made = self.embedding if self.encoder is None else self.encoder(self.embedding)
        config = PTuning(tokens=self.config.tokens, place=self.config.place, encoder="none")
        return config, {"embedding": made.detach().cpu().clone()}


class BiLSTM(nn.Module):
    """One layer, (n, in) -> (n, 2 h): torch's ``nn.LSTM`` with its two biases summed, both directions at once.

    Written out because the fp32 kernel of ``nn.LSTM`` has no forward-mode derivative, and cuDNN's no second one.
    """

    def __init__(self, size: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight_in = nn.Parameter(torch.empty(2, size, 4 * hidden))
        self.weight_hidden = nn.Parameter(torch.empty(2, hidden, 4 * hidden))
        self.bias = nn.Parameter(torch.empty(2, 1, 4 * hidden))
        _uniform(self.parameters(), hidden, generator)

    def forward(self, x: Tensor) -> Tensor:
        given = torch.stack([x, x.flip(0)]) @ self.weight_in + self.bias
        hidden = cell = given.new_zeros(2, 1, self.weight_hidden.shape[1])
        states = []
        for now in given.split(1, dim=1):
            enter, keep, new, out = (now + hidden @ self.weight_hidden).chunk(4, -1)
            cell = keep.sigmoid() * cell + enter.sigmoid() * new.tanh()
            hidden = out.sigmoid() * cell.tanh()
            states.append(hidden)
        there, back = torch.cat(states, dim=1)
        return torch.cat([there, back.flip(0)], dim=-1)


def _encoder(config: PTuning, size: int, generator: torch.Generator) -> nn.Module | None:
    """(n, E) -> (n, E), or None. Sizes where ``hidden`` is 0 are those of the authors' LAMA experiments."""
    if config.encoder == "none":
        return None
    if config.encoder == "mlp":
        hidden = config.hidden or size
        return _mlp([size, *[hidden] * (config.depth - 1), size], generator)
    hidden = config.hidden or max(1, size // 2)
    layers = [BiLSTM(size if not i else 2 * hidden, hidden, generator) for i in range(LSTM_LAYERS)]
    return nn.Sequential(*layers, _mlp([2 * hidden, size, size], generator))


def _mlp(sizes: Sequence[int], generator: torch.Generator) -> nn.Module:
    """Linear maps from each size to the next, with a ReLU between two."""
    modules: list[nn.Module] = []
    for size, following in pairwise(sizes):
        modules += [nn.ReLU()] * bool(modules) + [nn.Linear(size, following)]
        _uniform(modules[-1].parameters(), size, generator)
    return nn.Sequential(*modules)


def _uniform(parameters: Iterable[nn.Parameter], fan_in: int, generator: torch.Generator) -> None:
    """torch's own start of linear maps and LSTMs, from ``generator``."""
    for parameter in parameters:
        nn.init.uniform_(parameter, -(fan_in**-0.5), fan_in**-0.5, generator=generator)


def _start(backbone: Backbone, config: PTuning, generator: torch.Generator) -> Tensor:
    """(n, E) fp32: N(0, 1) or rows of words for an encoder, which wants unit spread; else with that of all words.

    Or another run's prompt, as it is.
    """
    rows = backbone.word_rows.detach()
    spread = rows.float().std().item()
    if config.start == "random":
        drawn = torch.empty(config.tokens, rows.shape[1]).normal_(generator=generator)
        return drawn * spread if config.encoder == "none" else drawn
    if config.start == "prompt":
        return start_from(config)
    found = _word_ids(backbone, config)
    copied = rows[list(islice(cycle(found), config.tokens))].float().cpu().clone()
    return copied if config.encoder == "none" else copied / spread


def _word_ids(backbone: Backbone, config: PTuning) -> list[int]:
    assert config.start == "words", "a run's own template is spelled out when the run is opened"
    tokenizer = backbone.tokenizer
    if isinstance(config.words, str):
        found = token_ids(tokenizer, f" {config.words.strip()}")
    else:
        known = tokenizer.get_vocab()
        unknown = [word for word in config.words if word not in known]
        if unknown:
            raise InputError(
                f"stage.words has {unknown[0]!r}, which is no entry of the vocabulary; give a text instead."
            )
        found = [known[word] for word in config.words]
    if len(found) > config.tokens:
        raise InputError(f"stage.words are {len(found)} tokens for {config.tokens} pseudo tokens; raise stage.tokens.")
    return found
