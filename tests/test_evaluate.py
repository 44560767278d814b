"""The metrics are scikit-learn's, and the intervals are as wide as they should be."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from clozeline.evaluate.classification import report

metrics = pytest.importorskip("sklearn.metrics")

CASES = [(200, 2), (500, 3), (37, 7), (1, 2)]


def random_case(examples: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are right more often than not, and targets."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, classes, examples)
    logits = random.normal(size=(examples, classes)) + 1.5 * np.eye(classes)[targets]
    return logits.astype(np.float32), targets


def names(classes: int) -> list[str]:
    return [f"label {at}" for at in range(classes)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("examples", "classes"), CASES)
def test_every_figure_is_the_one_of_scikit_learn(examples: int, classes: int, seed: int) -> None:
    logits, targets = random_case(examples, classes, seed)
    guesses, every = logits.argmax(1), list(range(classes))
    found = report(logits, targets, names(classes), np.zeros(examples, np.int64))
    assert found.accuracy.value == pytest.approx(metrics.accuracy_score(targets, guesses))
    f1 = metrics.f1_score(targets, guesses, labels=every, average=None, zero_division=0)
    assert list(found.f1.values()) == pytest.approx(f1.tolist())
    assert found.macro_f1.value == pytest.approx(metrics.f1_score(targets, guesses, average="macro"))
    assert found.confusion.tolist() == metrics.confusion_matrix(targets, guesses, labels=every).tolist()
    scores = np.exp(logits.astype(np.float64))
    scores /= scores.sum(1, keepdims=True)
    # logits are fp32: a rounding of 6e-8 in each
    assert found.loss == pytest.approx(metrics.log_loss(targets, scores, labels=every), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("examples", "classes"), CASES)
def test_an_interval_holds_its_value_and_stays_between_zero_and_one(examples: int, classes: int, seed: int) -> None:
    found = report(*random_case(examples, classes, seed), names(classes), np.zeros(examples, np.int64))
    for interval in (found.accuracy, found.macro_f1):
        assert 0 <= interval.low <= interval.value <= interval.high <= 1


@pytest.mark.parametrize("examples", [400, 6400])
def test_the_interval_of_the_accuracy_is_as_wide_as_the_binomial_says(examples: int) -> None:
    found = report(*random_case(examples, 2, 0), names(2), np.zeros(examples, np.int64)).accuracy
    expected = 2 * 1.96 * math.sqrt(found.value * (1 - found.value) / examples)
    # the ends are quantiles of 1,000 draws: each is off by about 6 % of the half width
    assert found.high - found.low == pytest.approx(expected, rel=0.15)


def test_a_model_that_is_always_right_has_an_interval_of_one_point() -> None:
    found = report(np.eye(3), np.arange(3), names(3), np.zeros(3, np.int64))
    assert (found.accuracy.low, found.accuracy.value, found.accuracy.high) == (1, 1, 1)


def test_a_label_that_is_never_predicted_has_f1_zero_and_counts_in_the_mean() -> None:
    logits = np.array([[2.0, 0.0, 1.0]] * 3 + [[0.0, 2.0, 1.0]])
    found = report(logits, np.array([0, 0, 2, 1]), names(3), np.zeros(4, np.int64))
    assert found.f1 == {"label 0": pytest.approx(0.8), "label 1": 1.0, "label 2": 0.0}
    assert found.macro_f1.value == pytest.approx(0.6)


def test_a_label_that_is_neither_there_nor_predicted_has_f1_zero() -> None:
    found = report(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), np.array([0, 1]), names(3), np.zeros(2, np.int64))
    assert found.f1["label 2"] == 0


def test_large_logits_do_not_overflow_the_loss() -> None:
    found = report(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 0]), names(2), np.zeros(2, np.int64))
    assert found.loss == pytest.approx(5e3)


def test_a_report_says_what_the_long_text_policy_cost() -> None:
    found = report(*random_case(4, 2, 0), names(2), np.array([0, 7, 0, 3]))
    assert (found.truncated_texts, found.truncated_tokens) == (2, 10)
    assert "2 texts truncated by 10 tokens" in str(found)
    assert "truncated" not in str(report(*random_case(4, 2, 0), names(2), np.zeros(4, np.int64)))


def test_a_report_is_the_same_each_time_and_fits_into_json() -> None:
    case = random_case(50, 3, 0)
    first, again = (report(*case, names(3), np.zeros(50, np.int64)).as_dict() for _ in range(2))
    assert json.loads(json.dumps(first)) == again
    assert first["accuracy_interval"][0] < first["accuracy"] < first["accuracy_interval"][1]
