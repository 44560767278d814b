"""Verdicts: chance is called unchanged, what is not chance is found, and the luck of a seed is no change."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from clozeline.hardening.verdict import _above, _quantile, change, corrected, level


@pytest.mark.parametrize("freedom", [1.0, 1.7, 4.0, 30.5, 24999.0])
def test_students_t_is_scipys(freedom: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    for value in (0.0, 0.3, 1.96, 5.0):
        assert _above(value, freedom) == pytest.approx(
            stats.t.sf(value, freedom), rel=2e-2 if freedom > 1000 else 1e-4, abs=1e-12
        )
    assert _quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-4)


def simulated(random: np.random.Generator, seeds: int, examples: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Right answers of models whose luck differs by seed, on examples of differing hardness."""
    hardness = random.normal(size=examples)
    luck = random.normal(scale=0.3, size=(2, seeds, 1))
    noise = random.normal(size=(2, seeds, examples))
    before, after = hardness + luck + noise + np.array([0.0, shift])[:, None, None] > -1
    return before.astype(float), after.astype(float)


@pytest.mark.parametrize(("seeds", "examples"), [(5, 30), (5, 300), (3, 1000)])
def test_chance_is_called_unchanged(seeds: int, examples: int) -> None:
    random, wrong = np.random.default_rng(0), 0
    for _ in range(400):
        wrong += change("x", "more", *simulated(random, seeds, examples, 0.0)).word != "unchanged"
    assert wrong <= 400 * 0.08, "5 % are expected"


def test_a_real_change_is_found_and_its_direction() -> None:
    random = np.random.default_rng(1)
    found = [change("x", "more", *simulated(random, 5, 200, 1.0)).word for _ in range(50)]
    assert found.count("improved") >= 45
    before, after = simulated(random, 5, 500, 1.5)
    assert change("x", "less", before, after).word == "harmed"
    assert change("x", "more", after, before).word == "harmed"


def test_the_luck_of_a_seed_is_no_change() -> None:
    """Each model answers all examples alike: 5,000 answers are five."""
    before = np.repeat([[1.0], [0.0], [1.0], [0.0], [1.0]], 1000, axis=1)
    after = np.repeat([[1.0], [1.0], [0.0], [1.0], [1.0]], 1000, axis=1)
    assert change("x", "more", before, after).word == "unchanged"
    assert change("x", "more", before[:1], after[:1]).difference.value == 0


def test_an_interval_of_few_examples_that_do_not_change_is_as_wide_as_they_allow() -> None:
    for examples, reach in ((1, 0.7), (34, 0.1), (1000, 0.004)):
        for value in (0.0, 1.0):
            found = change("x", "less", np.full((5, examples), value), np.full((5, examples), value))
            assert (found.word, found.p, found.difference.value) == ("unchanged", 1.0, 0.0)
            assert found.difference.high == -found.difference.low == pytest.approx(reach, rel=0.15)
        worse = change("x", "less", np.zeros((5, examples)), np.ones((5, examples))).difference
        assert worse.low == pytest.approx(1 - reach, abs=0.1) and worse.high == 1.0


def test_what_cancels_out_is_not_certain() -> None:
    halves = np.array([[1.0] * 5 + [0.0] * 5, [0.0] * 5 + [1.0] * 5])
    found = level(halves)
    assert found.low < 0.3 < found.value == 0.5 < 0.7 < found.high
    third = change("x", "more", np.zeros((3, 10)), np.full((3, 10), 1 / 3)).difference
    assert third.high - third.low > 0.4


def test_few_examples_that_all_change_are_still_few() -> None:
    assert change("x", "more", np.zeros((5, 3)), np.ones((5, 3))).word == "unchanged"
    assert change("x", "more", np.zeros((5, 8)), np.ones((5, 8))).word == "improved"
    assert change("x", "more", np.zeros((1, 1)), np.ones((1, 1))).word == "unchanged"


def test_one_of_twenty_is_below_five_per_cent_by_chance() -> None:
    random = np.random.default_rng(2)
    several = [change(str(at), "more", *simulated(random, 5, 60, 0.0)) for at in range(20)]
    fixed = corrected(several)
    assert all(after.p >= before.p for before, after in zip(several, fixed, strict=True))
    assert {one.word for one in fixed} == {"unchanged"}


def test_it_says_what_it_found() -> None:
    found = change("accuracy", "more", np.zeros((2, 10)), np.ones((2, 10)))
    assert str(found).startswith("accuracy 0.0 % to 100.0 %, +100.0 points")
    assert found.as_dict()["verdict"] == "improved"
    assert found.as_dict()["seeds"] == 2


@pytest.mark.parametrize(("seeds", "examples"), [(5, 40), (3, 400), (1, 200)])
def test_a_level_is_within_its_interval_as_often_as_it_says(seeds: int, examples: int) -> None:
    """Of one seed only the examples are chance, so that its model's own level is what is held."""
    random, held, truth = np.random.default_rng(3), 0, NormalDist().cdf(1 / math.sqrt(2.09))
    for _ in range(300):
        luck = random.normal(scale=0.3, size=(seeds, 1)) if seeds > 1 else np.zeros((1, 1))
        noise = random.normal(scale=1 if seeds > 1 else math.sqrt(1.09), size=(seeds, examples))
        found = level((random.normal(size=examples) + luck + noise > -1).astype(float))
        held += found.low <= truth <= found.high
    assert 0.91 * 300 <= held <= 0.995 * 300


def test_what_never_fails_is_not_certain() -> None:
    never, always = level(np.zeros((5, 30))), level(np.ones((5, 30)))
    assert (never.low, never.value, always.value, always.high) == (0.0, 0.0, 1.0, 1.0)
    assert never.high == pytest.approx(0.1135, abs=1e-3) == 1 - always.low
