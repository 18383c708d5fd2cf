"""The texts of the demo, as often as a bench asks for them."""

from __future__ import annotations

from importlib import resources

from listflow.data.rows import read_rows
from listflow.data.task import Columns
from listflow.pipeline.backbone.prompt import Text


def demo_texts(count: int) -> list[Text]:
    path = resources.files("listflow.data") / "demo" / "unlabelled.jsonl"
    texts = [(row.text, None) for row in read_rows(str(path), Columns(), is_pair=False)]
    return [texts[number % len(texts)] for number in range(count)]
