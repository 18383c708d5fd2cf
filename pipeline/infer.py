"""Logits of many texts: longest first, little padding, no gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from listflow.pipeline.backbone.prompt import Encoded
from listflow.pipeline.method.sampling import by_length
from listflow.pipeline.model.classifier import Classifier

TOKENS_A_BATCH = 1024


@torch.inference_mode()
def logits_of(model: Classifier, encoded: Encoded, on_rows: Callable[[int], None] = lambda rows: None) -> Tensor:
    """(N, C) fp32 logits on the CPU, in the order of ``encoded``; dropout off."""
    model.eval()
    found: Tensor | None = None
    device = next(iter(model.tunable().values())).device
    for rows in by_length(encoded.lengths(), TOKENS_A_BATCH):
        logits = model(encoded.batch(rows).to(device)).float().cpu()
        found = logits.new_empty(len(encoded), logits.shape[1]) if found is None else found
        found[torch.from_numpy(rows)] = logits
        on_rows(len(rows))
    if found is None:
        raise ValueError("no rows to predict")
    return found
