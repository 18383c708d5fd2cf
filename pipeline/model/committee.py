"""What is shipped: one classifier, or two that read a text by different faces, mixed (method/mixture.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from listflow.pipeline.backbone.prompt import Prompt, Text
from listflow.pipeline.backbone.text_face import TextFace
from listflow.pipeline.method.mixture import mixed
from listflow.pipeline.model.classifier import Classifier, logits_of


@dataclass(frozen=True)
class View:
    """A classifier, what makes its input of a text, and how far it is believed."""

    model: Classifier
    encoder: Prompt | TextFace
    weight: float = 1.0
    temperature: float = 1.0


@dataclass(frozen=True)
class Committee:
    """One or more views; what they say together, at a temperature of its own, is what is predicted."""

    views: tuple[View, ...]
    temperature: float = 1.0

    def logits(self, texts: Sequence[Text]) -> Tensor:
        """(N, C) fp32 class logits of texts: a lone view's own, or log-probabilities of the mixture."""
        found = [logits_of(view.model, view.encoder.encode(texts)) for view in self.views]
        if len(found) == 1:
            return found[0] / self.temperature
        said = mixed(found, [view.temperature for view in self.views], [view.weight for view in self.views])
        return said / self.temperature
