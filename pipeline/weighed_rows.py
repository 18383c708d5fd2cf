"""The rows of a round that its meta weights spoke for, and those that they spoke against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from listflow.pipeline.run.run import Run
from listflow.pipeline.storage.pseudo_labels import PseudoLabels, load_meta_weights, look_up, mean_weights


@dataclass(frozen=True)
class WeighedRow:
    """A pseudo-labelled row; ``weight`` is its mean meta weight, and 1 where all rows of a step weigh alike."""

    row_id: str
    text: str
    label: str
    weight: float


def weighed_rows(run: Run, number: int, most: int) -> tuple[list[WeighedRow], list[WeighedRow]]:
    """(the rows of a round that weighed most, those that weighed least): ``most`` of each, the extreme ones first."""
    folder = run.round_folder(number)
    rows, means = mean_weights([load_meta_weights(folder / "student" / "meta_weights.parquet")])
    labels = PseudoLabels.load(folder / "pseudo" / "labels.parquet", len(run.labels))
    top = look_up(labels.rows, labels.soft.argmax(1), rows).astype(int)
    most = min(most, len(rows) // 2)
    heavy, light = np.lexsort((rows, -means))[:most], np.lexsort((rows, means))[:most]
    corpus, share = run.inputs.corpus, min(run.config.student.batch, len(labels.rows))

    def told(places: np.ndarray) -> list[WeighedRow]:
        chosen = rows[places].tolist()
        texts = [text if pair is None else f"{text} / {pair}" for text, pair in corpus.texts(chosen)]
        facts = zip(corpus.row_ids(chosen), texts, top[places].tolist(), means[places].tolist(), strict=True)
        return [WeighedRow(row_id, text, run.labels[label], share * mean) for row_id, text, label, mean in facts]

    return told(heavy), told(light)
