"""Estimates with bootstrap intervals (Efron and Tibshirani 1993, percentile method)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
CHUNK = 50
"""Resamples drawn at once: their weights are an array of so many rows and a column for each example."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the interval that holds it at 95 % over resampled test sets."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def percentile(value: float, resampled: np.ndarray) -> Interval:
    """The interval of an estimate whose resampled values are these."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Interval(float(value), float(low), float(high))


def of_sums(counts: np.ndarray, measure: Callable[[np.ndarray], np.ndarray], seed: int = 0) -> Interval:
    """The interval of a measure of sums over examples.

    counts: (n, k), what each example adds; measure: (m, k) sums to (m,) values. Examples are drawn with replacement.
    """
    random, size = np.random.default_rng(seed), len(counts)
    parts = [
        measure(random.multinomial(size, np.full(size, 1 / size), size=CHUNK) @ counts)
        for _ in range(RESAMPLES // CHUNK)
    ]
    return percentile(float(measure(counts.sum(0, keepdims=True))[0]), np.concatenate(parts))
