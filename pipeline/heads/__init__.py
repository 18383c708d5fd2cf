"""Heads: what turns the features of a prompted text into class logits. ``HEADS`` maps a config's ``kind``."""

from __future__ import annotations

from listflow.pipeline.model.linear import Linear
from listflow.pipeline.model.verbalizer import Verbalizer
from listflow.pipeline.model.ytuning import YTuning

HEADS = {"verbalizer": Verbalizer, "linear": Linear, "ytuning": YTuning}
