"""The calibration error by hand, and temperatures that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clozeline.errors import InputError
from clozeline.evaluate.calibration import HOTTEST, cross_entropy, fit_temperature, log_scores, reliability, softmax


def drawn(temperature: float, classes: int, examples: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times those which the targets are drawn from."""
    random = np.random.default_rng(0)
    true = 2 * random.normal(size=(examples, classes))
    targets = (true + random.gumbel(size=true.shape)).argmax(1)
    return temperature * true, targets


def of_scores(*scores: float) -> np.ndarray:
    """Logits of two classes, the first of which has these scores."""
    first = np.array(scores)
    return np.log(np.stack([first, 1 - first], 1))


def test_the_error_of_a_case_counted_by_hand() -> None:
    # of ten bins: 0.62 right and 0.68 wrong in the seventh, 0.95 right in the tenth, 0.9 closes the ninth
    found = reliability(of_scores(0.62, 0.68, 0.95, 0.9), np.array([0, 1, 0, 1]), bins=10)
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 0, 2, 0, 1, 1]
    assert found.confidence[[6, 8, 9]].tolist() == pytest.approx([0.65, 0.9, 0.95])
    assert found.accuracy[[6, 8, 9]].tolist() == [0.5, 0, 1]
    assert found.edges[[0, 6, 10]].tolist() == pytest.approx([0, 0.6, 1])
    assert found.ece == pytest.approx((2 * 0.15 + 0.9 + 0.05) / 4)
    assert reliability(np.zeros((3, 2)), np.zeros(3, np.int64), bins=10).counts[4] == 3  # 0.5 closes the fifth


def test_the_error_is_the_loop_of_the_paper() -> None:
    logits, targets = drawn(1.7, 4, 500)
    scores = np.exp(log_scores(logits))
    confidence, right, error = scores.max(1), scores.argmax(1) == targets, 0.0
    for at in range(15):
        inside = (confidence > at / 15) & (confidence <= (at + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert reliability(logits, targets).ece == pytest.approx(error)
    assert reliability(logits, targets).counts.sum() == 500


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_a_known_temperature_is_found_and_mends_the_calibration(temperature: float, classes: int) -> None:
    logits, targets = drawn(temperature, classes)
    found = fit_temperature(logits.astype(np.float32), targets)
    assert found == pytest.approx(temperature, rel=0.03)  # 20,000 examples give it to about 1 %
    after = reliability(logits / found, targets).ece
    assert after < 0.015
    assert temperature == 1.0 or after < reliability(logits, targets).ece / 5
    assert found == fit_temperature(logits.astype(np.float32), targets)


@pytest.mark.parametrize("examples", [400, 4000])
def test_on_held_out_data_the_error_falls_and_no_label_changes(examples: int) -> None:
    logits, targets = drawn(2.0, 3, 2 * examples)
    found = fit_temperature(logits[:examples], targets[:examples])
    held, right = logits[examples:], targets[examples:]
    assert reliability(held / found, right).ece < 0.6 * reliability(held, right).ece
    np.testing.assert_array_equal((held / found).argmax(1), held.argmax(1))


def test_the_temperature_has_the_least_loss() -> None:
    logits, targets = drawn(1.4, 3, 200)
    found = fit_temperature(logits, targets)

    def loss(temperature: float) -> float:
        return float(-log_scores(logits / temperature)[np.arange(200), targets].mean())

    assert all(loss(found) < loss(found * factor) for factor in (0.5, 0.99, 0.9999, 1.0001, 1.01, 2))


def test_temperatures_without_a_least_loss_end_at_the_range() -> None:
    right = np.eye(2)[[0, 1, 0]]
    assert fit_temperature(right, np.array([0, 1, 0])) == pytest.approx(1 / HOTTEST)
    assert fit_temperature(right, np.array([1, 0, 1])) == pytest.approx(HOTTEST)
    assert fit_temperature(np.ones((4, 3)), np.array([0, 1, 2, 0])) == 1


def test_outputs_that_do_not_exist_change_nothing() -> None:
    logits, targets = drawn(2.0, 3, 500)
    wider = np.concatenate([logits, np.full((500, 1), -math.inf)], 1)
    assert fit_temperature(wider, targets) == fit_temperature(logits, targets)
    assert reliability(wider, targets).ece == reliability(logits, targets).ece


@pytest.mark.parametrize(
    ("targets", "given"), [([], "0 examples of 0 labels"), ([1], "1 examples of 1"), ([1, 1, 1], "3 examples of 1")]
)
def test_too_few_examples_are_refused(targets: list[int], given: str) -> None:
    with pytest.raises(InputError, match=given):
        fit_temperature(np.zeros((len(targets), 2)), np.array(targets, dtype=np.int64))


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, 0.0], [0.0, 1e4], [1e4, 0.0]])
    assert reliability(logits, np.array([0, 1, 1])).ece == pytest.approx(1 / 3)
    assert math.isfinite(fit_temperature(logits, np.array([0, 1, 1])))


def test_scores_and_losses_are_torchs() -> None:
    logits = 50 * np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    logits[3:, 3] = -np.inf  # no such output
    targets = np.arange(20) % 3
    exact = torch.from_numpy(logits).double()
    np.testing.assert_allclose(softmax(logits), torch.softmax(exact, -1).numpy(), rtol=1e-12)
    np.testing.assert_allclose(softmax(logits[0]), softmax(logits)[0], rtol=1e-12)
    expected = torch.nn.functional.cross_entropy(exact, torch.from_numpy(targets)).item()
    assert cross_entropy(logits, targets) == pytest.approx(expected, rel=1e-12)
