"""One classifier: the frozen layers below, the layers that a stage wraps, and the head on top.

``flat`` says what a finished model keeps: stages that trained through an encoder, a decoder or an MLP, without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Batch, Encoded
from listflow.pipeline.backbone.layers import divisible, lower, upper
from listflow.pipeline.backbone.masked_lm import head_logits
from listflow.pipeline.layers.attention import narrow
from listflow.pipeline.layers.dropout import with_own_dropout
from listflow.pipeline.layers.in_a_row import InARow
from listflow.pipeline.method.sampling import by_length, tokens_at_once
from listflow.pipeline.model.config import AnyHead
from listflow.pipeline.model.linear import Linear
from listflow.pipeline.model.prototypes import Prototypes
from listflow.pipeline.model.verbalizer import Verbalizer
from listflow.pipeline.model.ytuning import YTuning
from listflow.pipeline.stages.attach import attach_all
from listflow.pipeline.stages.config import AnyStage, Unified
from listflow.pipeline.stages.ipt import IntrinsicPrompt
from listflow.pipeline.stages.prefix import flat_prefix
from listflow.pipeline.stages.ptuning import SoftPrompt

# By the ``kind`` of their configuration.
HEADS = {"verbalizer": Verbalizer, "linear": Linear, "ytuning": YTuning, "prototypes": Prototypes}
TOKENS_A_BATCH = 1024


class Classifier(nn.Module):
    """``Batch`` -> (B, C) class logits in fp32. Only the tensors of ``stage`` and ``head`` can move.

    Layers below the first tuned one run without gradient and without dropout, and not at all for a batch that
    brings their output along.
    """

    def __init__(
        self,
        backbone: Backbone,
        stages: Sequence[AnyStage],
        head: AnyHead,
        word_ids: Sequence[Sequence[int]],
        seed: int = 0,
        offset: Tensor | None = None,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        depth = first_tuned_layer(stages, backbone)
        self.below = lower(backbone, depth) if depth else None
        self.encoder = with_own_dropout(upper(backbone, depth)) if depth < backbone.n_layers else None
        self.stage = attach_all(self.encoder, depth, backbone, stages, generator)
        self.head = HEADS[head.kind](head, backbone, word_ids, generator)
        if offset is not None:
            self.head.centre(offset)
        self.word_logits = partial(head_logits, backbone)
        self.narrow = self.head.reads_mask and self.encoder is not None and narrow(self.encoder, backbone)
        self.row = InARow.of(self.encoder, backbone)
        self.to(backbone.device).eval()

    def forward(self, batch: Batch) -> Tensor:
        logits: Tensor = self.head(self._features(batch), batch)
        return logits

    def train(self, mode: bool = True) -> Classifier:
        """As ``nn.Module.train``, but the frozen layers below never drop anything: they are a fixed function."""
        if mode == self.training:
            return self  # every step asks, and to walk over all modules takes half of a small step
        super().train(mode)
        if self.below is not None:
            self.below.eval()
        return self

    def states(self, batch: Batch, **narrowed: Tensor) -> Tensor:
        """The last layer's output, (B, T, D) at every token; (B, 1, D) where ``narrowed`` is the place ``mask_at``."""
        given = {"input_ids": batch.ids} if self.below is None else {"inputs_embeds": self._hidden(batch)}
        if self.encoder is None:
            return given["inputs_embeds"]
        if self.row is not None:
            return self.row.run(self.encoder, batch.attention, batch.visible, **narrowed, **given)
        found: Tensor = self.encoder(**given, **narrowed, attention_mask=batch.attended).last_hidden_state
        return found

    def tunable(self) -> dict[str, nn.Parameter]:
        """The trainable tensors by name, in a fixed order; what the optimiser updates and what is saved."""
        parts = (("stage", self.stage), ("head", self.head))
        named = ((f"{part}.{name}", p) for part, module in parts for name, p in module.named_parameters())
        return {name: p for name, p in named if p.requires_grad}

    def tensors(self) -> dict[str, Tensor]:
        """A detached CPU copy of what is saved: ``tunable()``, and what the head was given and does not train."""
        return {name: p.detach().cpu().clone() for name, p in self._saved().items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over saved tensors; ValueError when names or shapes differ in any way."""
        own = self._saved()
        wrong = sorted(own.keys() ^ tensors.keys()) or [n for n in own if own[n].shape != tensors[n].shape]
        if wrong:
            raise ValueError(f"saved tensors do not fit this classifier: {', '.join(wrong[:3])}")
        for name, parameter in own.items():
            parameter.copy_(tensors[name])

    def _saved(self) -> dict[str, Tensor]:
        fixed = {f"head.{name}": value for name, value in self.head.named_buffers()}
        return {**self.tunable(), **fixed}

    def _features(self, batch: Batch) -> Tensor:
        """The last layer's output as the head reads it: (B, D) at the mask, or (B, T, D)."""
        if not self.head.reads_mask:
            return self.states(batch)
        found = self.states(batch, mask_at=batch.mask_at) if self.narrow else self.states(batch)
        return found[torch.arange(len(found), device=found.device), 0 if self.narrow else batch.mask_at]

    def _hidden(self, batch: Batch) -> Tensor:
        """(B, T, D): what the layers below give, as the batch brings it along or computed now."""
        if batch.hidden is not None:
            return batch.hidden
        assert self.below is not None
        with torch.no_grad():
            return self.below(input_ids=batch.ids, attention_mask=batch.attention).last_hidden_state


def first_tuned_layer(stages: Sequence[AnyStage], backbone: Backbone) -> int:
    """How many layers lie below all that ``stages`` touch; 0 where the layers cannot run apart."""
    lowest = min(stage.lowest(backbone.n_layers) for stage in stages)
    return lowest if lowest == backbone.n_layers or divisible(backbone) else 0


@torch.inference_mode()
def logits_of(model: Classifier, encoded: Encoded, on_rows: Callable[[int], None] = lambda rows: None) -> Tensor:
    """(N, C) fp32 logits on the CPU, in the order of ``encoded``; dropout off.

    Longest texts first, with little padding; ``on_rows`` is told how many rows each batch had. ValueError without rows.
    """
    model.eval()
    found: Tensor | None = None
    device = next(iter(model.tunable().values())).device
    for rows in by_length(encoded.lengths(), tokens_at_once(device.type, TOKENS_A_BATCH)):
        logits = model(encoded.batch(rows).to(device)).float().cpu()
        found = logits.new_empty(len(encoded), logits.shape[1]) if found is None else found
        found[torch.from_numpy(rows)] = logits
        on_rows(len(rows))
    if found is None:
        raise ValueError("no rows to predict")
    return found


def flat(model: Classifier, stages: Sequence[AnyStage]) -> tuple[list[AnyStage], dict[str, Tensor]]:
    """(stages, tensors) of a classifier that gives the logits of ``model``, which was built with ``stages``."""
    tensors, found = model.tensors(), list(stages)
    places = [place for place, stage in enumerate(stages) if stage.kind != "none"]
    for number, (place, part) in enumerate(zip(places, model.stage, strict=True)):
        made = _made(part, stages[place])
        if made is not None:
            found[place], own = made
            prefix = f"stage.{number}."
            tensors = {name: value for name, value in tensors.items() if not name.startswith(prefix)}
            tensors |= {prefix + name: value for name, value in own.items()}
    return found, tensors


def _made(part: nn.Module, stage: AnyStage) -> tuple[AnyStage, dict[str, Tensor]] | None:
    """(stage, its tensors) without what it was trained through; None for a stage that is flat already."""
    if isinstance(part, SoftPrompt | IntrinsicPrompt):
        return part.flat()
    if isinstance(stage, Unified) and stage.mlp and isinstance(part, nn.ModuleList):
        return flat_prefix(part, stage)
    return None
