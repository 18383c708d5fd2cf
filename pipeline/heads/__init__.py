"""Heads: what turns the features of a prompted text into class logits. ``HEADS`` maps a config's ``kind``."""

from __future__ import annotations

from pipeline.heads.linear import Linear
from pipeline.heads.verbalizer import Verbalizer
from pipeline.heads.ytuning import YTuning

HEADS = {"verbalizer": Verbalizer, "linear": Linear, "ytuning": YTuning}
