"""Correlations and errors of predicted numbers, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from clozeline.errors import InputError
from clozeline.evaluate.cost import Cost, cost_of
from clozeline.evaluate.counts import ratio
from clozeline.evaluate.intervals import Counted, Interval, percentile, resamples, several


@dataclass(frozen=True, slots=True)
class Fit:
    """Of one target. pearson, spearman: -1 to 1; mse, mae: mean squared and absolute error, in the target's units.

    constant: what does not vary, if anything; both correlations are then 0 for want of a value.
    """

    pearson: Interval
    spearman: Interval
    mse: Interval
    mae: Interval
    constant: Literal["", "predictions", "targets"]

    def as_dict(self) -> dict[str, Any]:
        """The fit as JSON takes it."""
        named = {"pearson": self.pearson, "spearman": self.spearman, "mse": self.mse, "mae": self.mae}
        return {key: value for name, each in named.items() for key, value in each.named(name).items()}


@dataclass(frozen=True)
class RegressionReport(Cost):
    """What `evaluate` found. targets: by name."""

    examples: int
    targets: dict[str, Fit]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        return {
            "examples": self.examples,
            "targets": {name: each.as_dict() for name, each in self.targets.items()},
            **self.cost(),
        }

    def __str__(self) -> str:
        width = max(len(name) for name in self.targets)
        rows = [
            f"  {name:<{width}}  Pearson {each.pearson}  Spearman {each.spearman}"
            f"  squared error {each.mse}  absolute error {each.mae}"
            for name, each in self.targets.items()
        ]
        notes = [
            f"The {each.constant} of {name} are all the same: its correlations have no value and are given as 0."
            for name, each in self.targets.items()
            if each.constant
        ]
        return "\n".join([f"95 % intervals, {self.examples} examples{self.cost_said()}", *rows, *notes])


def report(
    values: np.ndarray,
    targets: np.ndarray,
    names: Sequence[str],
    cut: np.ndarray,
    seed: int = 0,
    windows: np.ndarray | None = None,
) -> RegressionReport:
    """Metrics of (n, K) predicted values against (n, K) targets. cut, windows: (n,) as in `cost_of`.

    Raises:
        InputError: a predicted value is not a finite number.
    """
    _check(values)
    size, errors = len(names), values.astype(np.float64) - targets
    rows = np.concatenate([_rows(values, targets), errors**2, np.abs(errors)], 1)

    def measure(sums: np.ndarray) -> np.ndarray:
        return np.concatenate([_pearson(sums[:, : 1 + 5 * size]), sums[:, -2 * size :] / sums[:, :1]], 1)

    found = several(rows, measure, seed)
    drawn = np.concatenate([_spearman(values, targets, weights) for weights in resamples(len(values), seed)])
    once = _spearman(values, targets, np.ones((1, len(values))))[0]
    orders = [percentile(value, column) for value, column in zip(once, drawn.T, strict=True)]
    fits = {}
    for at, name in enumerate(names):
        constant: Literal["", "predictions", "targets"] = "targets" if np.ptp(targets[:, at]) == 0 else ""
        constant = "predictions" if np.ptp(values[:, at]) == 0 else constant
        fits[name] = Fit(found[at], orders[at], found[size + at], found[2 * size + at], constant)
    return RegressionReport(len(targets), fits, **cost_of(cut, windows))


def measures(values: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Pearson's and Spearman's correlation, the mean over targets, without intervals: quick enough for each epoch."""
    pearson = _pearson(_rows(values, targets).sum(0, keepdims=True))
    spearman = _spearman(values, targets, np.ones((1, len(values))))
    return {"pearson": float(pearson.mean()), "spearman": float(spearman.mean())}


def counted(values: np.ndarray, targets: np.ndarray) -> Counted:
    """Pearson's correlation of (n, K) predicted values with (n, K) targets; the mean over targets where K > 1.

    Both are brought to mean 0 and variance 1 first: sums stay exact, and two models can be compared whose values
    differ in scale.

    Raises:
        InputError: a predicted value is not a finite number.
    """
    _check(values)
    return Counted("Pearson", _rows(values, targets), lambda sums: _pearson(sums).mean(1))


def _check(values: np.ndarray) -> None:
    if odd := int((~np.isfinite(values)).any(1).sum()):
        raise InputError(f"{odd} of {len(values)} predictions are not finite numbers: the model cannot be scored.")


def _rows(values: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(n, 1 + 5 K): 1, and x, y, xx, yy, xy of each target, K columns of each."""
    x, y = _standard(values), _standard(targets)
    return np.concatenate([np.ones((len(x), 1)), x, y, x * x, y * y, x * y], 1)


def _standard(values: np.ndarray) -> np.ndarray:
    """(n, K) with mean 0 and variance 1 in each column; 0 in a column whose values are all the same."""
    centred = values.astype(np.float64) - values.mean(0, dtype=np.float64)
    spread = np.broadcast_to(centred.std(0) * (np.ptp(values, axis=0) > 0), centred.shape)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)


def _pearson(sums: np.ndarray) -> np.ndarray:
    """(m, 1 + 5 K) sums -> (m, K); 0 where either does not vary, up to rounding."""
    total = sums[:, :1]
    x, y, xx, yy, xy = np.split(sums[:, 1:], 5, axis=1)
    across, up = total * xx - x * x, total * yy - y * y
    varies = (across > 1e-12 * total * xx) & (up > 1e-12 * total * yy)
    return np.clip(ratio(total * xy - x * y, np.sqrt(np.where(varies, across * up, 0))), -1, 1)


def _spearman(values: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(m, K): Pearson's correlation of ranks, in m resamples. weights: (m, n), how often each has each example."""
    found = []
    for pair in zip(values.T, targets.T, strict=True):
        x, y = (_ranks(each, weights) for each in pair)
        across, up = (weights * x * x).sum(1), (weights * y * y).sum(1)
        found.append(ratio((weights * x * y).sum(1), np.sqrt(across * up)))
    return np.clip(np.stack(found, 1), -1, 1)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n,) values, (m, n) weights -> (m, n) ranks about their mean; equal values share their mean rank."""
    group = np.unique(values, return_inverse=True)[1]
    order = np.argsort(group, kind="stable")
    many = np.add.reduceat(weights[:, order], np.flatnonzero(np.diff(group[order], prepend=-1)), axis=1)
    middle = np.cumsum(many, 1) - (many - 1) / 2
    return middle[:, group] - (weights.sum(1, keepdims=True) + 1) / 2
