"""Predicted numbers: the correlations are scipy's, ties included, and what does not vary is said."""

from __future__ import annotations

import json

import numpy as np
import pytest

from clozeline.errors import InputError
from clozeline.evaluate import regression

stats = pytest.importorskip("scipy.stats")


def case(seed: int, targets: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Values and targets of 2 to 60 examples, in half of the cases rounded so that many are equal."""
    random = np.random.default_rng(seed)
    wanted = random.normal(size=(int(random.integers(2, 60)), targets)) * 3
    values = wanted * random.uniform(-1, 1) + random.normal(size=wanted.shape)
    return (np.round(values), np.round(wanted)) if seed % 2 else (values, wanted)


def test_correlations_and_errors_are_those_of_scipy() -> None:
    compared = 0
    for seed in range(60):
        values, targets = case(seed)
        found = regression.report(values, targets, ["a", "b"], np.zeros(len(values), np.int64))
        for at, fit in enumerate(found.targets.values()):
            x, y = values[:, at], targets[:, at]
            assert fit.mse.value == pytest.approx(((x - y) ** 2).mean())
            assert fit.mae.value == pytest.approx(np.abs(x - y).mean())
            for each in (fit.pearson, fit.spearman, fit.mse, fit.mae):
                assert each.low <= each.value + 1e-12 or len(x) < 5
                assert each.value - 1e-12 <= each.high or len(x) < 5
            if np.ptp(x) and np.ptp(y):
                compared += 1
                assert fit.pearson.value == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-12)
                assert fit.spearman.value == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)
        both = [(fit.pearson.value, fit.spearman.value) for fit in found.targets.values()]
        quick = regression.measures(values, targets)
        assert [quick["pearson"], quick["spearman"]] == pytest.approx(np.mean(both, 0).tolist())
        assert regression.counted(values, targets).value == pytest.approx(quick["pearson"])
    assert compared > 100


def test_each_resample_of_ranks_is_ranked_anew() -> None:
    values, targets = case(21, targets=1)
    random = np.random.default_rng(0)
    drawn = [random.integers(0, len(values), len(values)) for _ in range(20)]
    weights = np.stack([np.bincount(each, minlength=len(values)) for each in drawn]).astype(np.float64)
    expected = [stats.spearmanr(values[each, 0], targets[each, 0])[0] for each in drawn]
    assert regression._spearman(values, targets, weights)[:, 0].tolist() == pytest.approx(expected)


def test_intervals_are_as_wide_as_the_theory_says() -> None:
    random = np.random.default_rng(0)
    targets = random.normal(size=(2000, 1))
    values = 0.8 * targets + 0.6 * random.normal(size=targets.shape)
    fit = regression.report(values, targets, ["a"], np.zeros(2000, np.int64)).targets["a"]
    # Fisher: atanh(r) has standard error 1 / sqrt(n - 3); the ends are quantiles of 1,000 draws, off by about 6 %
    assert np.arctanh(fit.pearson.high) - np.arctanh(fit.pearson.low) == pytest.approx(3.92 / 1997**0.5, rel=0.15)
    assert np.arctanh(fit.spearman.high) - np.arctanh(fit.spearman.low) == pytest.approx(3.92 / 1997**0.5, rel=0.25)


@pytest.mark.parametrize(("shift", "scale"), [(0, 1), (1e8, 1), (-3, 1e-9), (1e6, 1e9)])
def test_neither_shift_nor_scale_matters_to_a_correlation(shift: float, scale: float) -> None:
    values, targets = case(4)
    expected = regression.counted(values, targets).interval()
    found = regression.counted(values * scale + shift, targets - shift).interval()
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high), abs=1e-6
    )


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9])
def test_constant_predictions_have_correlations_of_zero_and_the_report_says_so(constant: float) -> None:
    targets = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    values = np.stack([np.full(30, constant), targets[:, 1]], 1).astype(np.float32)
    found = regression.report(values, targets, ["width", "height"], np.zeros(30, np.int64))
    flat, right = found.targets.values()
    assert [*map(str, (flat.pearson, flat.spearman))] == ["0.0000 [0.0000, 0.0000]"] * 2
    assert (right.pearson.value, right.spearman.low, right.mse.high) == pytest.approx((1, 1, 0))
    assert "The predictions of width are all the same" in str(found)
    assert "of height are" not in str(found)
    assert regression.counted(values, targets).value == pytest.approx(0.5)


def test_a_resample_of_one_example_only_has_a_correlation_of_zero_and_not_of_rounding() -> None:
    for seed in range(20):
        counted = regression.counted(*case(seed, targets=1))
        alone = np.concatenate([many * counted.rows for many in (3, 7, 49)])
        assert not counted.measure(alone).any()


def test_constant_targets_and_a_single_example_have_values_too() -> None:
    found = regression.report(np.arange(4.0)[:, None], np.ones((4, 1)), ["a"], np.array([0, 0, 5, 0]))
    assert (found.targets["a"].pearson.value, found.targets["a"].mae.value) == (0, 1)
    assert "The targets of a are all the same" in str(found)
    assert "1 texts truncated by 5 tokens" in str(found)
    assert json.loads(json.dumps(found.as_dict())) == found.as_dict()
    single = regression.report(np.ones((1, 1)), np.zeros((1, 1)), ["a"], np.zeros(1, np.int64)).targets["a"]
    assert (single.pearson.high, single.spearman.high, single.mse.low) == (0, 0, 1)


def test_predictions_that_are_no_numbers_are_refused() -> None:
    values = np.array([[1.0], [np.nan], [np.inf]])
    for score in (lambda: regression.counted(values, values), lambda: regression.report(values, values, ["a"], values)):
        with pytest.raises(InputError, match="2 of 3 predictions are not finite numbers"):
            score()
