"""What decides the outcome of an adaptation, besides the backbone and the texts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from listflow.data.task import Columns
from listflow.pipeline.run.config import Section


class AdaptConfig(Section):
    """Continued masked-LM training: how long, how fast, on what share of which tokens."""

    columns: Columns = Field(default=Columns(), description="the text column of csv, tsv, jsonl or parquet files")
    fresh: bool = Field(default=False, description="minilm: start from the plain encoder, not from an update")
    rank: int = Field(default=16, ge=1, le=256, description="minilm: rank of the update; kept when continuing")
    steps: int = Field(default=7000, ge=1, le=10_000_000, description="optimiser steps")
    batch: int = Field(default=32, ge=1, le=4096, description="sequences a step")
    length: int = Field(default=64, ge=8, le=8192, description="tokens of a sequence")
    mask_share: float = Field(default=0.2, gt=0, lt=1, description="share of the tokens to be guessed")
    learning_rate: float | None = Field(
        default=None, gt=0, le=1, description="peak; empty: 3e-4 for minilm, fresh 1e-3; 5e-5 for others"
    )
    head_learning_rate: float | None = Field(
        default=None, gt=0, le=1, description="minilm: of its head and LayerNorms; empty: 3e-4, fresh 2e-3"
    )
    warmup: float = Field(
        default=0.05, ge=0, lt=1, description="share of the steps with a rising rate; it falls to 0 then"
    )
    held_out: float = Field(default=0.01, gt=0, le=0.5, description="share to measure on, 2,000 sequences at most")
    seed: int = Field(default=1, ge=0, le=2**31)
    checkpoint_every: int = Field(default=500, ge=1, le=1_000_000, description="steps between two checkpoints")
    precision: Literal["auto", "fp32", "bf16"] = Field(default="auto", description="bf16 where the hardware has it")
    device: str = Field(default="auto", description="auto, cpu, or cuda")
