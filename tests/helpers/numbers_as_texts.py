"""Rows of numbers as texts, so that scikit-learn's own checks, which know numbers alone, can be asked about texts."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data
from tiny import FILLER

from listflow import TextClassifier

PLACES = 9  # words for a column: how large a number is


class NumbersClassifier(TextClassifier):
    """A text classifier that reads each number as one word: its column, and how large it is."""

    def fit(self, X: Any, y: Any, unlabelled: Any = None) -> Self:
        numbers, y = validate_data(self, X, y)
        return super().fit(_texts(numbers), y, unlabelled)

    def predict_proba(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return super().predict_proba(_texts(validate_data(self, X, reset=False)))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = False
        tags.input_tags.two_d_array = True
        return tags


def _texts(numbers: np.ndarray) -> list[str]:
    places = np.clip(np.round(numbers.astype(float) * 2) + PLACES // 2, 0, PLACES - 1).astype(int)
    return [
        " ".join(FILLER[(PLACES * column + place) % len(FILLER)] for column, place in enumerate(row)) for row in places
    ]
