"""Precision, recall and F1 from counts; each is 0 where there is nothing to divide by, as conlleval and scikit-learn."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Score:
    """Of one type or label. gold, predicted, right: how many."""

    precision: float
    recall: float
    f1: float
    gold: int
    predicted: int
    right: int

    def as_dict(self) -> dict[str, float | int]:
        """The score as JSON takes it."""
        return asdict(self)


def score(gold: int, predicted: int, right: int) -> Score:
    precision, recall, f1 = (
        float(ratio(np.array(part), np.array(whole)))
        for part, whole in ((right, predicted), (right, gold), (2 * right, gold + predicted))
    )
    return Score(precision, recall, f1, gold, predicted, right)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole of the same shape, and 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(part), dtype=np.float64), where=whole > 0)
