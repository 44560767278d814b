"""Attention weights made small enough for a page: logarithms in one or two bytes, the smallest of a row by their mean.

Attention is many small weights and a few large ones. Kept weights are right to a share of themselves, whatever their size;
what is below a cutoff stands as the mean of what its row has left, so that rows sum to 1.
"""

from __future__ import annotations

import base64
import math
import zlib
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

STEPS = [(16, 4096, 2**16 - 1), *((8, 16, last) for last in range(255, 7, -8))]
"""Bits of a code, codes to each halving of a weight, and the last code in use: the first that fits is taken.

Two bytes are within 0.009 % down to 0.00002; one is within 2.2 %, down to cutoffs that are a factor of 1.4 apart.
"""
FAIR = next(at for at, (_, octave, last) in enumerate(STEPS) if 2 ** (-last / octave) > 0.01)
"""From here on so much is left out that weights are better shown in parts."""
SAMPLE = 500_000
"""Weights by which a size is guessed."""
PORTION = 2**18
"""Weights that are worked on at once, which fit into a cache."""


@dataclass(frozen=True, eq=False)
class Rounded:
    """Weights of (layers, heads, L, L) as a page has them.

    codes: code c says 2 ** ((1 - c) / octave), and 0 that the weight is left out; cutoff: weights from this one on are kept;
    gone: (layers, heads) heads that have no weights.
    """

    codes: np.ndarray
    octave: int
    cutoff: float
    gone: np.ndarray

    @cached_property
    def packed(self) -> str:
        """The codes, of two bytes the lower first, deflated and in base64."""
        return base64.b64encode(_deflated(self.codes)).decode()

    def weights(self) -> np.ndarray:
        """What is shown: rows sum to 1, those of heads that are gone to 0."""
        return np.stack([*self._heads()]).reshape(self.codes.shape)

    def errors(self, weights: np.ndarray) -> tuple[float, float]:
        """How far what is shown is from these weights at most, and by what share of a weight that was kept."""
        most, share = 0.0, 0.0
        for shown, given in zip(self._heads(), weights.reshape(-1, *weights.shape[-2:]), strict=True):
            apart = np.abs(shown - np.nan_to_num(given))
            most = max(most, float(apart.max(initial=0)))
            kept = given >= self.cutoff
            share = max(share, float((apart[kept] / given[kept]).max(initial=0)))
        return most, share

    def _heads(self) -> Iterator[np.ndarray]:
        table = np.exp2((1 - np.arange(2 ** (8 * self.codes.itemsize), dtype=np.float32)) / self.octave)
        table[0] = 0
        for codes, gone in zip(self.codes.reshape(-1, *self.codes.shape[-2:]), self.gone.reshape(-1), strict=True):
            shown = table[codes]
            if not gone:
                out = codes == 0
                left = np.maximum(1 - shown.sum(-1, keepdims=True), 0) / np.maximum(out.sum(-1, keepdims=True), 1)
                shown = np.where(out, left, shown)
                shown /= shown.sum(-1, keepdims=True)
            yield shown.astype(np.float32)


def rounded(weights: np.ndarray, budget: int) -> Rounded:
    """The weights as exact as they fit into so many bytes of a page, or as rough as they can be."""
    gone = np.isnan(weights).all((-1, -2))
    for step in STEPS[_first(weights, budget) :]:
        found = Rounded(_codes(weights, *step), step[1], 2 ** ((0.5 - step[2]) / step[1]), gone)
        if len(found.packed) <= budget:
            break
    return found


def parts(weights: np.ndarray, budget: int) -> int:
    """In how many parts of that size the weights are a fair picture."""
    return max(1, math.ceil(_size(weights, STEPS[FAIR - 1]) / budget))


def _codes(weights: np.ndarray, bits: int, octave: int, last: int) -> np.ndarray:
    codes = np.empty(weights.shape, f"<u{bits // 8}")
    given, made = weights.reshape(-1), codes.reshape(-1)
    for at in range(0, len(given), PORTION):
        with np.errstate(divide="ignore"):
            found = np.log2(given[at : at + PORTION], dtype=np.float32)
        found *= -octave
        np.rint(found, out=found)
        found += 1
        found[~(found <= last)] = 0  # and what is no number
        made[at : at + PORTION] = found
    return codes


def _first(weights: np.ndarray, budget: int) -> int:
    return min(bisect_left(STEPS, -budget, key=lambda step: -_size(weights, step)), len(STEPS) - 1)


def _size(weights: np.ndarray, step: tuple[int, int, int]) -> int:
    """Bytes that the weights are likely to take."""
    rows = weights.reshape(-1, weights.shape[-1])
    some = rows[:: max(1, weights.size // SAMPLE)]
    return round(len(_deflated(_codes(some, *step))) * len(rows) / len(some) * 4 / 3)


def _deflated(codes: np.ndarray) -> bytes:
    """Without a search for longer repeats than of one code: 9 % smaller and eight times as fast as with it."""
    deflate = zlib.compressobj(strategy=zlib.Z_RLE)
    return deflate.compress(codes.tobytes()) + deflate.flush()
