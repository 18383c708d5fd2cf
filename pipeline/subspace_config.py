"""What decides which subspace is found, besides the runs that bring the prompts."""

from __future__ import annotations

from pydantic import Field, model_validator

from listflow.data.schema import Section


class SubspaceConfig(Section):
    """Multi-task subspace finding (arXiv 2110.07867, section 3.2): size of the auto-encoder and its training."""

    dim: int = Field(50, ge=1, le=2000, description="coordinates d_I of a prompt")
    hidden: int = Field(768, ge=1, le=8192, description="width of the decoder")
    steps: int = Field(2000, ge=1, le=10_000_000, description="optimiser steps")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="peak, after a warm-up over 6 % of the steps")
    prompts: int = Field(16, ge=1, le=4096, description="prompts that are reconstructed in a step")
    batch: int = Field(16, ge=1, le=1024, description="labelled rows of one of them in a step")
    task_weight: float = Field(1.0, ge=0, le=1000, description="of the task loss under reconstructed prompts")
    reconstruction_weight: float = Field(
        1.0, ge=0, le=1000, description="of the squared error, as a share of the prompts' variance"
    )
    clip: float = Field(1.0, gt=0, description="global gradient norm")
    seed: int = Field(1, ge=0, le=2**31)

    @model_validator(mode="after")
    def _learns_something(self) -> SubspaceConfig:
        if not self.task_weight and not self.reconstruction_weight:
            raise ValueError("task_weight and reconstruction_weight are both 0: nothing would be learned")
        return self
