"""Exact match and F1 of answers to questions, as the official SQuAD scorers count them.

Source: evaluate-v1.1.py and evaluate-v2.0.py (Rajpurkar et al. 2016, 2018). A question without an answer is right where the
prediction is empty.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clozeline.evaluate.cost import Cost, cost_of
from clozeline.evaluate.intervals import Counted, Interval

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(answer: str) -> str:
    """Lower case, without punctuation, articles and extra spaces."""
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(PUNCTUATION)).split())


def exact(predicted: str, golds: Sequence[str]) -> float:
    """1 where the prediction is one of the answers after normalisation, else 0."""
    return float(any(normalise(predicted) == normalise(gold) for gold in golds))


def overlap(predicted: str, golds: Sequence[str]) -> float:
    """The best F1 over the answers of the words in common; 1 where both are empty."""
    return max(_f1(normalise(predicted).split(), normalise(gold).split()) for gold in golds)


def _f1(predicted: list[str], gold: list[str]) -> float:
    if not predicted or not gold:
        return float(predicted == gold)
    common = (Counter(predicted) & Counter(gold)).total()
    return 2 * common / (len(predicted) + len(gold))


@dataclass(frozen=True)
class AnswerReport(Cost):
    """What scoring found; all values are of 1. missing: questions without a prediction, counted as wrong.

    answerable, unanswerable: exact match and F1 among questions that have an answer, and that have none; None where there
    are no such questions.
    """

    questions: int
    exact: Interval
    f1: Interval
    answerable: tuple[float, float] | None
    unanswerable: tuple[float, float] | None
    missing: int

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        found: dict[str, Any] = {
            "questions": self.questions,
            **self.exact.named("exact"),
            **self.f1.named("f1"),
            "missing": self.missing,
            **self.cost(),
        }
        for name, part in (("answerable", self.answerable), ("unanswerable", self.unanswerable)):
            if part is not None:
                found |= {f"{name}_exact": part[0], f"{name}_f1": part[1]}
        return found

    def __str__(self) -> str:
        asked = f"(95 % intervals over {self.questions} questions{self.cost_said()})"
        lines = [f"exact match {self.exact}  F1 {self.f1}  {asked}"]
        for name, part in (("with an answer", self.answerable), ("without an answer", self.unanswerable)):
            if part is not None and self.unanswerable is not None:
                lines.append(f"  {name:<17}  exact match {part[0]:.4f}  F1 {part[1]:.4f}")
        if self.missing:
            lines.append(f"{self.missing} questions have no prediction and count as wrong.")
        return "\n".join(lines)


def report(
    golds: Mapping[str, Sequence[str]],
    predicted: Mapping[str, str],
    seed: int = 0,
    *,
    cut: np.ndarray | None = None,
    windows: np.ndarray | None = None,
) -> AnswerReport:
    """Score predictions by question id. golds: all accepted answers of each question; none where it has no answer.

    cut, windows: (n,) as in `cost_of`, where a model read the passages.
    """
    scores = _scores(golds, predicted)
    has_answer = np.array([any(normalise(answer) for answer in answers) for answers in golds.values()])

    def among(chosen: np.ndarray) -> tuple[float, float] | None:
        part = scores[chosen].mean(0) if chosen.any() else None
        return None if part is None else (float(part[0]), float(part[1]))

    missing = len(golds.keys() - predicted.keys())
    exacts, f1s = (_mean(name, scores[:, at]).interval(seed) for at, name in enumerate(("exact match", "F1")))
    return AnswerReport(
        len(golds), exacts, f1s, among(has_answer), among(~has_answer), missing, **cost_of(cut, windows)
    )


def counted(golds: Mapping[str, Sequence[str]], predicted: Mapping[str, str], metric: str = "f1") -> Counted:
    """F1 or exact match; an example is a question, in the order of `golds`."""
    scores = _scores(golds, predicted)
    return _mean("F1", scores[:, 1]) if metric == "f1" else _mean("exact match", scores[:, 0])


def measures(golds: Mapping[str, Sequence[str]], predicted: Mapping[str, str]) -> dict[str, float]:
    """F1 and exact match without intervals: quick enough for each epoch."""
    exacts, f1 = _scores(golds, predicted).mean(0).tolist()
    return {"f1": f1, "exact": exacts}


def _scores(golds: Mapping[str, Sequence[str]], predicted: Mapping[str, str]) -> np.ndarray:
    """(n, 2): exact match and F1 of each question, 0 where there is no prediction."""
    scores = np.zeros((len(golds), 2))
    for at, (name, answers) in enumerate(golds.items()):
        accepted = [answer for answer in answers if normalise(answer)] or [""]
        if name in predicted:
            scores[at] = exact(predicted[name], accepted), overlap(predicted[name], accepted)
    return scores


def _mean(name: str, values: np.ndarray) -> Counted:
    return Counted(name, np.stack([values, np.ones(len(values))], 1), lambda sums: sums[:, 0] / sums[:, 1])
