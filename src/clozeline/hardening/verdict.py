"""Whether a change is real: the same examples judged before and after, by models of several seeds.

Two things are chance in such a difference: which examples are in the test, and which seed a model was trained with. Both are
counted: the differences are a two-way layout of seeds and examples with both of them drawn at random, whose mean has the
variance (MS_seeds + MS_examples - MS_rest) / (S n) and degrees of freedom after Satterthwaite (Cornfield and Tukey 1956;
Searle, Casella and McCulloch, Variance Components, 1992). In simulations without a difference it found one at 5 % in 4 to 6
of 100 with three or five seeds, and in 10 to 13 with two, whose luck is hardly known from two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from clozeline.evaluate.compare import holm
from clozeline.evaluate.intervals import Interval
from clozeline.evaluate.proportions import wilson

Word = Literal["improved", "unchanged", "harmed"]
NORMAL = 1000
"""Degrees of freedom from which Student's t is a normal distribution."""
CHANGE = ("what", "from", "to", "difference", "95 %", "p", "verdict")
"""What `Change.row` has."""
TINY = 1e-9
"""Means nearer than this to each other differ by rounding."""
SURE = 0.05
"""The chance of a difference as great, were there none, below which it is called one."""


@dataclass(frozen=True)
class Change:
    """A measure before and after. what: its name; better: whether "more" or "less" of it is; difference: after less before;
    p: the chance of one as great were there none, after Holm's correction where several were looked at; examples, seeds:
    that it is of."""

    what: str
    better: Literal["more", "less"]
    before: float
    after: float
    difference: Interval
    p: float
    examples: int
    seeds: int

    @property
    def word(self) -> Word:
        if self.p >= SURE or self.difference.value == 0:
            return "unchanged"
        return "improved" if (self.difference.value > 0) == (self.better == "more") else "harmed"

    def __str__(self) -> str:
        low, high = 100 * self.difference.low, 100 * self.difference.high
        return (
            f"{self.what} {100 * self.before:.1f} % to {100 * self.after:.1f} %, {100 * self.difference.value:+.1f} points "
            f"[{low:+.1f}, {high:+.1f}], {'within' if self.word == 'unchanged' else 'beyond'} chance (p {self.p:.2g})"
        )

    @property
    def sentence(self) -> str:
        return f"{str(self)[0].upper()}{str(self)[1:]}."

    @property
    def row(self) -> list[str]:
        """For a table."""
        low, high = 100 * self.difference.low, 100 * self.difference.high
        spread = [f"{100 * self.difference.value:+.1f}", f"{low:+.1f} to {high:+.1f}"]
        return [self.what, f"{self.before:.1%}", f"{self.after:.1%}", *spread, f"{self.p:.2g}", self.word]

    def as_dict(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in ("what", "better", "before", "after", "p", "examples", "seeds")}
        return {**found, **self.difference.named("difference"), "verdict": self.word}


def change(what: str, better: Literal["more", "less"], before_SN: np.ndarray, after_SN: np.ndarray) -> Change:
    """Of (S, n) values from 0 to 1 of n examples, such as 1 where an answer is right, by the models of S seeds."""
    seeds, examples = before_SN.shape
    apart_SN = after_SN.astype(np.float64) - before_SN
    mean = float(apart_SN.mean())
    error, freedom = _error(apart_SN)
    if error:
        reach = error * _quantile(freedom)
        p = 2 * _above(abs(mean) / error, freedom)
    else:  # the same difference everywhere, which without any spread would be certain
        reach, p = wilson(0, examples).high, float(mean == 0)
    changed = int(apart_SN.any(0).sum())
    p = min(1.0, max(p, 2 * 0.5**changed))  # a few examples are no more than as many coins
    interval = Interval(mean, max(-1.0, mean - reach), min(1.0, mean + reach))
    return Change(what, better, float(before_SN.mean()), float(after_SN.mean()), interval, p, examples, seeds)


def level(values_SN: np.ndarray) -> Interval:
    """The mean of such values by itself, with its 95 % interval over other examples and other seeds."""
    mean, examples = float(values_SN.mean()), values_SN.shape[1]
    error, freedom = _error(values_SN)
    if not error:  # without any spread it would be certain
        return replace(wilson(round(mean * examples), examples), value=mean)
    reach = error * _quantile(freedom)
    return Interval(mean, max(0.0, mean - reach), min(1.0, mean + reach))


def corrected(changes: Sequence[Change]) -> list[Change]:
    """The same with p after Holm's correction: of twenty that are looked at, one is below 0.05 by chance alone."""
    return [replace(one, p=p) for one, p in zip(changes, holm([one.p for one in changes]), strict=True)]


def _error(apart_SN: np.ndarray) -> tuple[float, float]:
    """The standard error of the mean, and its degrees of freedom. Of one seed, only examples are chance."""
    seeds, examples = apart_SN.shape
    if examples < 2 or (np.ptp(apart_SN.mean(0)) < TINY and np.ptp(apart_SN.mean(1)) < TINY):
        return 0.0, 1.0
    by_seed, by_example = apart_SN.mean(1), apart_SN.mean(0)
    mean_examples = seeds * by_example.var(ddof=1)
    if seeds == 1:
        return math.sqrt(mean_examples / examples), examples - 1.0
    mean_seeds = examples * by_seed.var(ddof=1)
    rest_SN = apart_SN - by_seed[:, None] - by_example + apart_SN.mean()
    mean_rest = float((rest_SN**2).sum()) / ((seeds - 1) * (examples - 1))
    parts = [(mean_seeds, seeds - 1), (mean_examples, examples - 1), (-mean_rest, (seeds - 1) * (examples - 1))]
    total = sum(part for part, _ in parts)
    # the estimate may be too low, even below zero, where seeds and examples differ less than the rest does
    floor = max(mean_seeds, mean_examples)
    if total <= floor:
        return math.sqrt(floor / (seeds * examples)), float(seeds - 1 if floor == mean_seeds else examples - 1)
    freedom = total**2 / sum(part**2 / free for part, free in parts)
    return math.sqrt(total / (seeds * examples)), max(1.0, freedom)


def _above(value: float, freedom: float) -> float:
    """The chance that Student's t is above a value, by Simpson's rule over the angle: t = sqrt(freedom) tan(angle)."""
    if freedom > NORMAL:
        return 1 - NormalDist().cdf(value)
    begin = math.atan(value / math.sqrt(freedom))
    angles = np.linspace(begin, math.pi / 2, 2001)
    heights = np.cos(angles) ** (freedom - 1)
    weights = np.ones(2001)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    area = float((weights * heights).sum()) * (math.pi / 2 - begin) / 6000
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return min(0.5, scale * area)


def _quantile(freedom: float, above: float = 0.025) -> float:
    """The value above which Student's t is with this chance: from the normal one, which is less, up by Newton's steps."""
    value = NormalDist().inv_cdf(1 - above)
    if freedom > NORMAL:
        return value
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi * freedom)
    step = 1.0
    while step > 1e-9 * value:
        step = (_above(value, freedom) - above) / (scale * (1 + value**2 / freedom) ** (-(freedom + 1) / 2))
        value += step
    return value
