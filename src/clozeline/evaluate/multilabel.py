"""F1 and exact match of a classifier that gives a text any number of labels, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clozeline.errors import InputError
from clozeline.evaluate.cost import Cost, cost_of
from clozeline.evaluate.counts import Score, ratio, score
from clozeline.evaluate.intervals import Counted, Interval, several


@dataclass(frozen=True)
class MultiLabelReport(Cost):
    """What `evaluate` found. A label is given where its score, the sigmoid of its logit, reaches the threshold.

    micro_f1: of all decisions; macro_f1: the mean over labels, without those neither there nor given; exact: share of
    texts whose labels are all right; scores: by label; loss: mean binary cross-entropy of a decision.
    """

    examples: int
    labels: tuple[str, ...]
    threshold: float
    micro_f1: Interval
    macro_f1: Interval
    exact: Interval
    scores: dict[str, Score]
    loss: float

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        return {
            "examples": self.examples,
            "threshold": self.threshold,
            **self.micro_f1.named("micro_f1"),
            **self.macro_f1.named("macro_f1"),
            **self.exact.named("exact"),
            "scores": {label: each.as_dict() for label, each in self.scores.items()},
            "loss": self.loss,
            "labels": list(self.labels),
            **self.cost(),
        }

    def __str__(self) -> str:
        width = max(len(label) for label in self.labels)
        rows = [
            f"  {label:<{width}}  F1 {each.f1:.4f}  precision {each.precision:.4f}  recall {each.recall:.4f}"
            f"  of {each.gold:>6}  predicted {each.predicted:>6}"
            for label, each in self.scores.items()
        ]
        read = f"(95 % intervals, {self.examples} examples{self.cost_said()})"
        head = f"micro F1 {self.micro_f1}  macro F1 {self.macro_f1}  {read}"
        below = f"all labels right {self.exact}  loss {self.loss:.4f}  (labels from a score of {self.threshold:g})"
        return "\n".join([head, below, *rows])


def report(
    logits: np.ndarray,
    targets: np.ndarray,
    labels: Sequence[str],
    cut: np.ndarray,
    threshold: float = 0.5,
    seed: int = 0,
    windows: np.ndarray | None = None,
) -> MultiLabelReport:
    """Metrics of (n, C) logits against (n, C) targets of 0 and 1. cut, windows: (n,) as in `cost_of`.

    Raises:
        InputError: the threshold is not between 0 and 1.
    """
    size, rows = len(labels), _rows(*_decided(logits, targets, threshold))
    totals = rows.sum(0).astype(np.int64)
    right, there, given = totals[: 3 * size].reshape(3, size).tolist()
    micro, macro, exact = several(rows, lambda sums: _values(sums, totals), seed)
    precise = logits.astype(np.float64)
    return MultiLabelReport(
        examples=len(targets),
        labels=tuple(labels),
        threshold=threshold,
        micro_f1=micro,
        macro_f1=macro,
        exact=exact,
        scores={label: score(*each) for label, *each in zip(labels, there, given, right, strict=True)},
        loss=float((np.logaddexp(0, precise) - precise * targets).mean()),
        **cost_of(cut, windows),
    )


def measures(logits: np.ndarray, targets: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
    """Micro F1, macro F1 and exact match without intervals: quick enough for each epoch."""
    totals = _rows(*_decided(logits, targets, threshold)).sum(0)
    return dict(zip(("micro_f1", "macro_f1", "exact"), _values(totals[None], totals)[0].tolist(), strict=True))


def counted(logits: np.ndarray, targets: np.ndarray, threshold: float = 0.5, metric: str = "micro_f1") -> Counted:
    """The micro_f1, macro_f1 or exact match of (n, C) logits against (n, C) targets of 0 and 1.

    Macro F1 is the mean over the labels that the summed texts have or are given.
    """
    parts = _decided(logits, targets, threshold)
    if metric != "micro_f1":
        rows = _rows(*parts)
        if metric == "exact":
            return Counted("all labels right", rows[:, -2:], lambda sums: ratio(sums[:, 0], sums[:, 1]))
        return Counted("macro F1", rows[:, :-2], _macro)
    return Counted("micro F1", np.stack([part.sum(1) for part in parts], 1).astype(np.float64), _micro)


def _decided(logits: np.ndarray, targets: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each decision, (n, C): whether the label is given rightly, is there, is given."""
    if not 0 < threshold < 1:
        raise InputError(f"The threshold is {threshold:g}; it is a score between 0 and 1, such as 0.5.")
    there, given = targets > 0, logits >= np.log(threshold / (1 - threshold))
    return there & given, there, given


def _rows(right: np.ndarray, there: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(n, 3 C + 2): the three, then whether all labels of the text are right, then 1."""
    whole = (there == given).all(1, keepdims=True)
    return np.concatenate([right, there, given, whole, np.ones_like(whole)], 1).astype(np.float64)


def _values(sums: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """(m, 3 C + 2) sums of such rows -> (m, 3): micro F1, macro F1 over the labels that `totals` has, exact match."""
    right, there, given = np.moveaxis(sums[:, :-2].reshape(len(sums), 3, -1), 1, 0)
    each, present = ratio(2 * right, there + given), totals[:-2].reshape(3, -1)[1:].sum(0) > 0
    macro = each[:, present].mean(1) if present.any() else np.zeros(len(sums))
    micro = _micro(np.stack([part.sum(1) for part in (right, there, given)], 1))
    return np.stack([micro, macro, sums[:, -2] / sums[:, -1]], 1)


def _macro(sums: np.ndarray) -> np.ndarray:
    """(m, 3 C) sums of right, there and given -> (m,) mean F1 of the labels there or given."""
    right, there, given = np.moveaxis(sums.reshape(len(sums), 3, -1), 1, 0)
    return ratio(ratio(2 * right, there + given).sum(1), (there + given > 0).sum(1))


def _micro(sums: np.ndarray) -> np.ndarray:
    """(m, 3) sums of right, there and given -> (m,) F1."""
    return ratio(2 * sums[:, 0], sums[:, 1] + sums[:, 2])
