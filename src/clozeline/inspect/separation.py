"""How far the senses of a word are apart, layer by layer, and how sure that is: a bootstrap over its occurrences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clozeline.evaluate.intervals import RESAMPLES

BEST = {"separation": 1, "between senses": -1, "occurrences": -1}
"""What names the best layer, the first that there is: without pairs within senses, occurrences should be least alike."""
FEW = 5
"""Occurrences of each sense that resampling needs; fewer are too often the same one drawn again and again."""


def measures(cosines: np.ndarray, groups: np.ndarray | None) -> dict[str, np.ndarray]:
    """By name, (layers,) each, from (layers, n, n) cosines and the sense of each occurrence.

    Without senses the mean cosine of "occurrences". With them that "between senses"; and, where one is there more than once,
    that "within senses", the "separation", which is their difference, and the mean "silhouette" coefficient (Rousseeuw
    1987) over cosine distances: 1 where senses are far apart, 0 where they are mixed, below 0 where each is nearer to
    another.
    """
    n = cosines.shape[1]
    pairs = ~np.eye(n, dtype=bool)
    if groups is None:
        return {"occurrences": cosines[:, pairs].mean(1)}
    same = (groups[:, None] == groups) & pairs
    between = cosines[:, pairs & ~same].mean(1)
    if not same.any():
        return {"between senses": between}
    within = cosines[:, same].mean(1)
    member = groups[:, None] == np.unique(groups)  # (n, senses)
    counts = member.sum(0)
    sums = (1 - cosines) @ member
    own = sums[:, member] / np.maximum(1, counts[groups] - 1)
    nearest = np.where(member, np.inf, sums / counts).min(2)
    shape = (nearest - own) / np.maximum(np.maximum(nearest, own), 1e-12)
    silhouette = np.where(counts[groups] > 1, shape, 0).mean(1)
    return {
        "within senses": within,
        "between senses": between,
        "separation": within - between,
        "silhouette": silhouette,
    }


@dataclass(frozen=True, eq=False)
class Sure:
    """What becomes of the measure that names the best layer when occurrences are drawn again, with replacement.

    low, high: (layers,) the ends of its 95 % interval; first: (layers,) how often each layer is the best one of those behind
    the embedding; alike: the other layers, the embedding included, whose difference to the best has 0 in its interval.
    """

    low: np.ndarray
    high: np.ndarray
    first: np.ndarray
    alike: tuple[int, ...]

    @classmethod
    def of(cls, cosines: np.ndarray, groups: np.ndarray | None, name: str, best: int) -> Sure | None:
        """None where a sense has too few occurrences."""
        n = cosines.shape[1]
        senses = np.zeros(n, int) if groups is None else groups
        if np.bincount(senses).min() < FEW:
            return None
        drawn = _resampled(cosines, senses, name)
        layers = 1 + (BEST[name] * drawn[:, 1:]).argmax(1)
        least = np.percentile(BEST[name] * (drawn[:, [best]] - drawn), 2.5, axis=0)
        alike = tuple(at for at in np.flatnonzero(least <= 0).tolist() if at != best)
        first = np.bincount(layers, minlength=len(cosines)) / len(layers)
        low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
        return cls(low, high, first, alike)


def _resampled(cosines: np.ndarray, senses: np.ndarray, name: str) -> np.ndarray:
    """(resamples, layers) of a measure. Each sense keeps its size; an occurrence drawn twice is no pair with itself."""
    random, n = np.random.default_rng(0), len(senses)
    times = np.zeros((RESAMPLES, n))
    for sense in np.unique(senses):
        rows = np.flatnonzero(senses == sense)
        times[:, rows] = random.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), RESAMPLES)
    same = senses[:, None] == senses
    other = ~same
    np.fill_diagonal(same, False)

    def mean(pairs: np.ndarray) -> np.ndarray:
        *sums, count = (((times @ (layer * pairs)) * times).sum(1) for layer in (*cosines, np.ones((n, n))))
        return np.stack(sums, 1) / count[:, None]

    with np.errstate(invalid="ignore"):  # of one occurrence of each sense alone there are no pairs
        found = mean(same) - mean(other) if name == "separation" else mean(same)
    return found[np.isfinite(found).all(1)]
