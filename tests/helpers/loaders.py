"""A data loader of torch whose workers hold a predictor, for a process that is apart."""

from __future__ import annotations

from pathlib import Path

from torch.utils.data import DataLoader

from listflow import Predictor


def labels_by_loader(run: Path, texts: list[str], method: str, seconds: int) -> list[str]:
    """The labels of ``texts`` by two workers that were started by ``method``, after a prediction with two threads."""
    predictor = Predictor.open(run)
    predictor.predict(texts)
    loader = DataLoader(
        texts, batch_size=100, num_workers=2, collate_fn=predictor.predict, timeout=seconds,  # type: ignore[arg-type]
        multiprocessing_context=method,
    )  # fmt: skip
    return [label for labels in loader for label in labels]
