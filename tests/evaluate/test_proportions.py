"""Intervals of shares and the exact test have the values of the papers, of scipy, and of plain counting."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from clozeline.evaluate.proportions import fisher, newcombe, wilson


def test_intervals_are_those_that_newcombe_printed() -> None:
    # Newcombe 1998, Statistics in Medicine 17, 857-872, table I (3: score) and 873-890, table II (10)
    for (count, total), ends in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
    }.items():
        found = wilson(count, total)
        assert (found.low, found.high) == pytest.approx(ends, abs=5e-5) and found.value == count / total
    for a, b, ends in (
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((10, 10), (0, 20), (0.6791, 1.0)),
    ):
        found = newcombe(wilson(*a), wilson(*b))
        assert (found.low, found.high) == pytest.approx(ends, abs=6e-5)


def test_an_interval_of_nothing_wrong_has_a_width_and_holds_its_value() -> None:
    for total in (1, 10, 10**6):
        for count in (0, total):
            found = wilson(count, total)
            assert 0 <= found.low <= found.value <= found.high <= 1 and found.low < found.high


def test_fisher_is_counting_all_draws() -> None:
    total, every, rows = 9, 4, 3
    drawn = [sum(at < every for at in chosen) for chosen in combinations(range(total), rows)]
    chances = np.bincount(drawn, minlength=rows + 1) / len(drawn)
    for count in range(rows + 1):
        expected = chances[chances <= chances[count] + 1e-12].sum()
        assert fisher(count, rows, every, total) == pytest.approx(expected)
    assert fisher(3, 4, 4, 8) == pytest.approx(34 / 70), "the lady tasting tea"
    assert fisher(0, 5, 0, 50) == 1, "nothing is wrong anywhere"


def test_fisher_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(0)
    for total in (20, 300, 20_000):
        rows, every = (int(random.integers(1, total)) for _ in range(2))
        count = int(random.hypergeometric(every, total - every, rows))
        table = [[count, rows - count], [every - count, total - every - rows + count]]
        assert fisher(count, rows, every, total) == pytest.approx(stats.fisher_exact(table).pvalue, rel=1e-6)
    assert math.isclose(fisher(100, 1000, 100, 10**6), 0, abs_tol=1e-200)
