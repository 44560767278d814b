"""Accuracy of a model that picks one of several answers to each question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from clozeline.evaluate import classification
from clozeline.evaluate.intervals import Counted, Interval


@dataclass(frozen=True)
class ChoiceReport:
    """What `evaluate` found. chance: the accuracy of guessing, the mean of 1 / choices over questions.

    truncated_texts, truncated_tokens: what the long-text policy cost.
    """

    questions: int
    accuracy: Interval
    chance: float
    truncated_texts: int
    truncated_tokens: int

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        return {
            "questions": self.questions,
            **self.accuracy.named("accuracy"),
            "chance": self.chance,
            "truncated_texts": self.truncated_texts,
            "truncated_tokens": self.truncated_tokens,
        }

    def __str__(self) -> str:
        cut = (
            f", {self.truncated_texts} texts truncated by {self.truncated_tokens} tokens"
            if self.truncated_texts
            else ""
        )
        return (
            f"accuracy {self.accuracy}  by chance {self.chance:.4f}  (95 % interval, {self.questions} questions{cut})"
        )


def report(scores: np.ndarray, targets: np.ndarray, cut: np.ndarray, seed: int = 0) -> ChoiceReport:
    """Metrics of (n, K) scores against (n,) targets, the number of the right choice.

    scores: -inf where a question has fewer choices than K. cut: tokens that the model did not see, in any shape, a
    number for each text.
    """
    return ChoiceReport(
        questions=len(targets),
        accuracy=counted(scores, targets).interval(seed),
        chance=float((1 / (~np.isneginf(scores)).sum(1)).mean()),
        truncated_texts=int((cut > 0).sum()),
        truncated_tokens=int(cut.sum()),
    )


def measures(scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Accuracy without an interval: quick enough for each epoch."""
    return {"accuracy": counted(scores, targets).value}


def counted(scores: np.ndarray, targets: np.ndarray) -> Counted:
    """The accuracy of (n, K) scores against (n,) targets."""
    assert not np.isneginf(scores[np.arange(len(targets)), targets]).any(), "the right choice is there"
    return classification.counted(scores, targets)
