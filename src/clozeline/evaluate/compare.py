"""Is one model better than another? Both on the same examples, over all of them and in each slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from clozeline.errors import InputError
from clozeline.evaluate.intervals import CELLS, Counted, Interval, percentile, resamples

SWAPS = 5000
MOST = 200
"""Slices of a comparison: with 5,000 swaps no p-value is under 0.0002, which says nothing among more than 250."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Of two models over n examples. a, b: their values; difference: b - a, with its paired interval.

    p: how likely a difference as large as this is where the models are equally good. corrected: the same where that may
    happen in any of the slices (Holm 1979); over all examples it is p.
    """

    n: int
    a: float
    b: float
    difference: Interval
    p: float
    corrected: float

    def as_dict(self) -> dict[str, Any]:
        """The difference as JSON takes it."""
        found = asdict(self)
        return {**found, **self.difference.named("difference")}


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. metric: such as "accuracy"; slices: by name, from b's greatest loss to its greatest gain."""

    metric: str
    names: tuple[str, str]
    overall: Difference
    slices: dict[str, Difference]

    def as_dict(self) -> dict[str, Any]:
        """The comparison as JSON takes it."""
        return {
            "metric": self.metric,
            "names": list(self.names),
            **self.overall.as_dict(),
            "slices": {name: each.as_dict() for name, each in self.slices.items()},
        }

    def __str__(self) -> str:
        rows = {"all": self.overall, **{f"  {name}": each for name, each in self.slices.items()}}
        first = max(len(name) for name in rows)
        a, b = (max(len(name), 7) for name in self.names)
        lines = [
            f"{self.metric}, with 95 % intervals of the difference",
            f"{'':<{first}}  {'n':>7}  {self.names[0]:>{a}}  {self.names[1]:>{b}}  {'difference':<26}  p",
        ]
        for name, each in rows.items():
            shown = each.difference
            change = f"{shown.value:+.4f} [{shown.low:+.4f}, {shown.high:+.4f}]"
            lines.append(
                f"{name:<{first}}  {each.n:>7}  {each.a:>{a}.4f}  {each.b:>{b}.4f}  {change:<26}  {each.corrected:.4f}"
            )
        if len(self.slices) > 1:
            lines.append(f"p of a slice is corrected for there being {len(self.slices)} of them (Holm).")
        return "\n".join(lines)


def compare(
    a: Counted, b: Counted, names: tuple[str, str], slices: Sequence[str] | None = None, seed: int = 0
) -> Comparison:
    """Compare two models by the same metric on the same n examples, example by example.

    The interval is a bootstrap with the same resample for both. p is of an approximate randomisation test (Noreen
    1989): each example's results are swapped between the models with probability 1/2, 5,000 times, and
    p = (1 + swaps with a difference as large) / (1 + swaps).

    Args:
        slices: a name for each example; each name is compared on its own examples too.

    Raises:
        InputError: the examples or the metrics are not the same, or there are more than 200 slices.
    """
    if len(a.rows) != len(b.rows):
        raise InputError(
            f"{names[0]} is scored on {len(a.rows)} examples and {names[1]} on {len(b.rows)}: "
            "both must be scored on the same."
        )
    if a.name != b.name:
        raise InputError(f"{names[0]} is scored by {a.name} and {names[1]} by {b.name}: give both the same task.")
    if slices is not None and len(slices) != len(a.rows):
        raise InputError(f"There are {len(slices)} names of slices for {len(a.rows)} examples: give one for each.")
    which = np.array([] if slices is None else slices, dtype=object)
    kinds = sorted(set(which))
    if len(kinds) > MOST:
        raise InputError(
            f"There are {len(kinds)} slices, such as {kinds[0]!r}, and at most {MOST} can be told apart: "
            "slice by a column with few values."
        )
    parts = {kind: _difference(a, b, np.flatnonzero(which == kind), seed) for kind in kinds}
    adjusted = holm([each.p for each in parts.values()])
    found = {
        kind: Difference(each.n, each.a, each.b, each.difference, each.p, p)
        for (kind, each), p in zip(parts.items(), adjusted, strict=True)
    }
    ordered = dict(sorted(found.items(), key=lambda entry: entry[1].difference.value))
    return Comparison(a.name, names, _difference(a, b, np.arange(len(a.rows)), seed), ordered)


def _difference(a: Counted, b: Counted, chosen: np.ndarray, seed: int) -> Difference:
    one, other = a.rows[chosen].astype(np.float64), b.rows[chosen].astype(np.float64)
    sums = one.sum(0, keepdims=True), other.sum(0, keepdims=True)
    values = float(a.measure(sums[0])[0]), float(a.measure(sums[1])[0])
    apart = values[1] - values[0]
    drawn = [a.measure(weights @ other) - a.measure(weights @ one) for weights in resamples(len(one), seed)]
    # examples that add the same to both change nothing when swapped
    differ = (one != other).any(1)
    change = (other - one)[differ]
    extreme = 0
    for swapped in _swaps(len(change), seed):
        moved = swapped @ change
        found = a.measure(sums[1] - moved) - a.measure(sums[0] + moved)
        extreme += int((np.abs(found) >= abs(apart) - 1e-12).sum())  # sums of reals differ by rounding
    p = (1 + extreme) / (1 + SWAPS)
    return Difference(len(one), *values, percentile(apart, np.concatenate(drawn)), p, p)


def _swaps(size: int, seed: int) -> Iterator[np.ndarray]:
    """SWAPS draws, some at once: (m, size), 1 where an example is swapped and 0 where not."""
    random, some = np.random.default_rng(seed), max(1, CELLS // max(size, 1))
    for at in range(0, SWAPS, some):
        yield random.integers(0, 2, (min(some, SWAPS - at), size), dtype=np.int8).astype(np.float64)


def holm(values: list[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979): the smallest times all of them, the next times one less, and on."""
    order = np.argsort(values, kind="stable")
    steps = np.array(values)[order] * np.arange(len(values), 0, -1)
    found = np.empty(len(values))
    found[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return found.tolist()
