"""One classifier: a backbone view, the stage that wraps it, and the head on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline.backbone import Backbone
from pipeline.batch import Batch
from pipeline.config import HeadConfig, StageConfig
from pipeline.heads import HEADS
from pipeline.stages import STAGES


class Classifier(nn.Module):
    """``Batch`` -> (B, C) class logits in fp32. Only the tensors of ``stage`` and ``head`` can move."""

    def __init__(
        self,
        backbone: Backbone,
        stage: StageConfig,
        head: HeadConfig,
        word_ids: Sequence[int],
        seed: int = 0,
        offset: Tensor | None = None,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.encoder = backbone.view()
        self.stage = STAGES[stage.kind](self.encoder, backbone, stage, generator)
        self.head = HEADS[head.kind](backbone, word_ids, offset)
        self.to(backbone.device).eval()

    def forward(self, batch: Batch) -> Tensor:
        features = self.encoder(input_ids=batch.ids, attention_mask=batch.attention).last_hidden_state
        return self.head(features, batch)

    def tunable(self) -> dict[str, nn.Parameter]:
        """The trainable tensors by name, in a fixed order; what the optimiser updates and what is saved."""
        parts = (("stage", self.stage), ("head", self.head))
        named = ((f"{part}.{name}", p) for part, module in parts for name, p in module.named_parameters())
        return {name: p for name, p in named if p.requires_grad}

    def tensors(self) -> dict[str, Tensor]:
        """A detached CPU copy of ``tunable()``."""
        return {name: p.detach().cpu().clone() for name, p in self.tunable().items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over saved tensors; ValueError when names or shapes differ in any way."""
        own = self.tunable()
        wrong = sorted(own.keys() ^ tensors.keys()) or [n for n in own if own[n].shape != tensors[n].shape]
        if wrong:
            raise ValueError(f"saved tensors do not fit this classifier: {', '.join(wrong[:3])}")
        for name, parameter in own.items():
            parameter.copy_(tensors[name])
