"""Heads: what turns the features of a prompted text into class logits. ``HEADS`` maps a config's ``kind``."""

from __future__ import annotations

from pipeline.heads.verbalizer import Verbalizer

HEADS = {"verbalizer": Verbalizer}
