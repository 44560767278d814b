"""Shares of counts with closed-form intervals and an exact test, good also for ten texts that are all right.

A bootstrap of such a slice has no width at all; the intervals here are Wilson's (1927) and Newcombe's (1998, method 10), and
the test is Fisher's (1922).
"""

from __future__ import annotations

import math

import numpy as np

from clozeline.evaluate.intervals import Interval

Z = 1.959964
"""Standard deviations from the mean that hold 95 % of a normal distribution."""


def wilson(count: int, total: int) -> Interval:
    """The share count / total with the interval that Wilson's score test at 5 % leaves."""
    assert 0 <= count <= total and total > 0
    share, spread = count / total, Z**2 / total
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return Interval(share, min(max(middle - half, 0.0), share), max(min(middle + half, 1.0), share))


def newcombe(a: Interval, b: Interval) -> Interval:
    """The difference a - b of two shares of different examples, each as `wilson` gives it."""
    apart = a.value - b.value
    low = apart - math.hypot(a.value - a.low, b.high - b.value)
    return Interval(apart, low, apart + math.hypot(a.high - a.value, b.value - b.low))


def fisher(count: int, rows: int, every: int, total: int) -> float:
    """How likely it is that of `rows` examples, drawn from `total` of which `every` count, as few or as many do as `count`.

    Two-sided: the sum over all counts that are no more likely than this one.
    """
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])

    def choose(many: int, some: np.ndarray) -> np.ndarray:
        return logs[many] - logs[some] - logs[many - some]

    counts = np.arange(max(0, rows + every - total), min(rows, every) + 1)
    assert counts[0] <= count <= counts[-1]
    chances = np.exp(choose(every, counts) + choose(total - every, rows - counts) - choose(total, np.array(rows)))
    return min(
        1.0, float(chances[chances <= chances[count - counts[0]] * (1 + 1e-7)].sum())
    )  # equal ones may round apart
