"""How far a classifier's confidence is its accuracy, and the temperature that mends it.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from clozeline.errors import InputError

HOTTEST = 100.0
"""Temperatures are looked for between 1 / HOTTEST and HOTTEST."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """B bins of confidence, each open below and closed above.

    edges: (B + 1,); counts: (B,) examples; confidence: (B,) mean score of the predicted label; accuracy: (B,) share
    that is right. The last two are 0 where a bin is empty.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean over examples of |confidence - accuracy| of their bin, of 1."""
        return float((self.counts * np.abs(self.confidence - self.accuracy)).sum() / self.counts.sum())


def reliability(logits: np.ndarray, targets: np.ndarray, bins: int = 15) -> Reliability:
    """(n, C) logits against (n,) targets, in bins of equal width."""
    scores = softmax(logits)
    confidence, right = scores.max(1), logits.argmax(1) == targets
    edges = np.linspace(0, 1, bins + 1)
    which = np.digitize(confidence, edges[1:-1], right=True)
    counts = np.bincount(which, minlength=bins)
    means = (np.bincount(which, each, minlength=bins) / np.maximum(counts, 1) for each in (confidence, right))
    return Reliability(edges, counts, *means)


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """The temperature that logits are divided by for the least mean cross-entropy, from (n, C) logits and (n,) targets.

    The accuracy stays as it is. At an end of the range, 1 / HOTTEST or HOTTEST, where the loss falls all the way to it,
    as when every example is right; 1 where no temperature changes the loss.

    Raises:
        InputError: fewer than two examples, or targets of one class only.
    """
    if len(targets) < 2 or len(np.unique(targets)) < 2:
        given = f"{len(targets)} examples of {len(np.unique(targets))} labels"
        raise InputError(
            f"A temperature cannot be fitted on {given}: it takes two examples of different labels or more."
        )
    exact = logits.astype(np.float64)
    aimed = exact[np.arange(len(targets)), targets]

    def slope(sharpness: float) -> float:
        """Of the loss, which is convex in 1 / temperature."""
        scores = softmax(exact * sharpness)
        expected = np.multiply(scores, exact, out=np.zeros_like(exact), where=scores > 0).sum(1)
        return float((expected - aimed).mean())

    if slope(1.0) == 0:
        return 1.0
    low, high = -math.log(HOTTEST), math.log(HOTTEST)
    for _ in range(40):  # halves the range to 1e-11
        middle = (low + high) / 2
        low, high = (low, middle) if slope(math.exp(middle)) > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def log_scores(logits: np.ndarray) -> np.ndarray:
    """(..., C) logits -> (..., C) logarithms of the scores that sum to 1, in double precision; -inf: no such output."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def softmax(logits: np.ndarray) -> np.ndarray:
    """(..., C) logits -> (..., C) scores that sum to 1, in double precision."""
    return np.exp(log_scores(logits))


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """The mean over examples of minus the logarithm of the target's score, from (n, C) logits and (n,) targets."""
    return float(-log_scores(logits)[np.arange(len(targets)), targets].mean())
