"""Estimates with bootstrap intervals (Efron and Tibshirani 1993, percentile method)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
CELLS = 2**21
"""The most cells of an array with a row for each resample drawn at once and a column for each example: 16 MiB."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the interval that holds it at 95 % over resampled test sets."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def named(self, name: str) -> dict[str, float | list[float]]:
        """As JSON takes it: the value under `name`, both ends under `name`_interval."""
        return {name: self.value, f"{name}_interval": [self.low, self.high]}


@dataclass(frozen=True, eq=False)
class Counted:
    """A metric as a function of sums over examples, so that examples can be resampled and swapped.

    name: such as "accuracy"; rows: (n, k), what each example adds; measure: (m, k) sums to (m,) values.
    """

    name: str
    rows: np.ndarray
    measure: Callable[[np.ndarray], np.ndarray]

    @property
    def value(self) -> float:
        return float(self.measure(self.rows.sum(0, keepdims=True))[0])

    def interval(self, seed: int = 0) -> Interval:
        """The value with its bootstrap interval."""
        return of_sums(self.rows, self.measure, seed)


def resamples(size: int, seed: int = 0) -> Iterator[np.ndarray]:
    """RESAMPLES draws of `size` examples with replacement, some at once: (m, size), how often each draw has each example."""
    random, some = np.random.default_rng(seed), max(1, CELLS // size)
    for at in range(0, RESAMPLES, some):
        drawn = random.multinomial(size, np.full(size, 1 / size), size=min(some, RESAMPLES - at))
        yield drawn.astype(np.float64)  # counts are exact in it, and its products are many times faster


def percentile(value: float, resampled: np.ndarray) -> Interval:
    """The interval of an estimate whose resampled values are these."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Interval(float(value), float(low), float(high))


def of_sums(counts: np.ndarray, measure: Callable[[np.ndarray], np.ndarray], seed: int = 0) -> Interval:
    """The interval of a measure of sums over examples.

    counts: (n, k), what each example adds; measure: (m, k) sums to (m,) values. Examples are drawn with replacement.
    """
    return several(counts, lambda sums: measure(sums)[:, None], seed)[0]


def several(counts: np.ndarray, measure: Callable[[np.ndarray], np.ndarray], seed: int = 0) -> list[Interval]:
    """The intervals of j measures of the same sums, over the same resamples. measure: (m, k) sums to (m, j) values."""
    drawn = np.concatenate([measure(weights @ counts) for weights in resamples(len(counts), seed)])
    values = measure(counts.sum(0, keepdims=True))[0]
    return [percentile(value, column) for value, column in zip(values, drawn.T, strict=True)]
