"""Accuracy of a model that picks one of several answers to each question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from clozeline.evaluate import classification
from clozeline.evaluate.cost import Cost, cost_of
from clozeline.evaluate.intervals import Counted, Interval


@dataclass(frozen=True)
class ChoiceReport(Cost):
    """What `evaluate` found. chance: the accuracy of guessing, the mean of 1 / choices over questions."""

    questions: int
    accuracy: Interval
    chance: float

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        return {
            "questions": self.questions,
            **self.accuracy.named("accuracy"),
            "chance": self.chance,
            **self.cost(),
        }

    def __str__(self) -> str:
        asked = f"(95 % interval, {self.questions} questions{self.cost_said()})"
        return f"accuracy {self.accuracy}  by chance {self.chance:.4f}  {asked}"


def report(
    scores: np.ndarray, targets: np.ndarray, cut: np.ndarray, seed: int = 0, windows: np.ndarray | None = None
) -> ChoiceReport:
    """Metrics of (n, K) scores against (n,) targets, the number of the right choice.

    scores: -inf where a question has fewer choices than K. cut, windows: as in `cost_of`, a number for each text.
    """
    return ChoiceReport(
        questions=len(targets),
        accuracy=counted(scores, targets).interval(seed),
        chance=float((1 / (~np.isneginf(scores)).sum(1)).mean()),
        **cost_of(cut, windows),
    )


def measures(scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Accuracy without an interval: quick enough for each epoch."""
    return {"accuracy": counted(scores, targets).value}


def counted(scores: np.ndarray, targets: np.ndarray) -> Counted:
    """The accuracy of (n, K) scores against (n,) targets."""
    assert not np.isneginf(scores[np.arange(len(targets)), targets]).any(), "the right choice is there"
    return classification.counted(scores, targets)
