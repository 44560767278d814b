"""Random numbers and random orders without a state: each is a function of a key and a place, so nothing is stored.

A run that was stopped, or one of several processes, finds the same numbers without having drawn those before.
"""

from __future__ import annotations

import numpy as np

ROUNDS = 4
"""Of the Feistel network: Luby and Rackoff 1988 show that four are enough."""


def mixed(*numbers: np.ndarray | np.uint64 | int) -> np.ndarray:
    """64 random bits for each row of numbers, which broadcast: (n,) uint64 (splitmix64, Steele, Lea and Flood 2014)."""
    found = np.zeros(1, np.uint64)
    for number in numbers:
        x = found + np.asarray(number).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        found = x ^ (x >> np.uint64(31))
    return found


def uniform(*numbers: np.ndarray | np.uint64 | int) -> np.ndarray:
    """As `mixed`, numbers from 0 to below 1."""
    return (mixed(*numbers) >> np.uint64(11)) * 2.0**-53


def permuted(places: np.ndarray, count: int, key: int) -> np.ndarray:
    """(n,) int64: what stands at these places of a random order of 0 to count - 1, in memory of the size of `places`.

    A Feistel network over the next even power of two, walked until it lands among the count (Black and Rogaway 2002).
    """
    half = max(1, -(-max(count - 1, 1).bit_length() // 2))
    low = np.uint64(2**half - 1)
    found = np.array(places, np.uint64)
    outside = np.ones(len(found), bool)
    while outside.any():
        left, right = found[outside] >> np.uint64(half), found[outside] & low
        for step in range(ROUNDS):
            left, right = right, left ^ (mixed(key, step, right) & low)
        found[outside] = left << np.uint64(half) | right
        outside = found >= np.uint64(count)
    return found.astype(np.int64)
