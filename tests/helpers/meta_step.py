"""A step of reweighting on rows of unlike lengths, and the task that they are of."""

from __future__ import annotations

import torch
from tiny import FILLER

from listflow.data.task import Task
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.method.reweight import Step

TASK = Task(name="t", template="{text} it was {mask} .", labels={"no": "bad", "yes": "good", "so": "fine"})


def step_of(prompt: Prompt, seed: int, unlabelled: int = 7) -> Step:
    """Rows of unlike lengths, so that padding takes part; V is longer than U."""
    generator = torch.Generator().manual_seed(seed)

    def texts(lengths: list[int]) -> list[tuple[str, None]]:
        draws = [torch.randint(0, len(FILLER), (n,), generator=generator).tolist() for n in lengths]
        return [(" ".join(FILLER[i] for i in draw), None) for draw in draws]

    u, v = prompt.encode(texts([2 + i for i in range(unlabelled)])), prompt.encode(texts([3, 9, 14]))
    soft = (3 * torch.randn(unlabelled, 3, generator=generator)).softmax(-1)
    return Step(u.batch(range(unlabelled)), soft, v.batch(range(3)), torch.tensor([0, 2, 1]))
