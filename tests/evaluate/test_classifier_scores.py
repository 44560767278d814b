"""Classifiers, of one label or several, and choices: the figures are scikit-learn's, and the edges have values."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from clozeline.errors import InputError
from clozeline.evaluate import choices, classification, multilabel
from clozeline.evaluate.intervals import Counted, of_sums

metrics = pytest.importorskip("sklearn.metrics")


def names(size: int) -> list[str]:
    return [f"label {at}" for at in range(size)]


def uncut(size: int) -> np.ndarray:
    return np.zeros(size, np.int64)


def single(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits and targets of 1 to 80 examples and 2 to 6 labels, some of which may be neither there nor predicted."""
    random = np.random.default_rng(seed)
    examples, size = int(random.integers(1, 80)), int(random.integers(2, 7))
    targets = random.integers(0, random.integers(1, size + 1), examples)
    return random.normal(size=(examples, size)) + random.uniform(0, 3) * np.eye(size)[targets], targets


def several(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    examples, size = int(random.integers(1, 80)), int(random.integers(2, 7))
    targets = (random.random((examples, size)) < random.uniform(0, 0.6)).astype(np.float32)
    return random.normal(size=(examples, size)) + random.uniform(0, 3) * (targets - 0.5), targets


@pytest.mark.filterwarnings("ignore:A single label was found")
def test_one_label_of_many_scores_as_scikit_learn_has_it() -> None:
    for seed in range(60):
        logits, targets = single(seed)
        guesses, every = logits.argmax(1), list(range(logits.shape[1]))
        found = classification.report(logits, targets, names(len(every)), uncut(len(targets)))
        assert found.mcc.value == pytest.approx(metrics.matthews_corrcoef(targets, guesses), abs=1e-12)
        parts = metrics.precision_recall_fscore_support(targets, guesses, labels=every, zero_division=0)
        for ours, theirs in zip((found.precision, found.recall, found.f1), parts, strict=False):
            assert list(ours.values()) == pytest.approx(theirs.tolist())
        assert found.macro_f1.value == pytest.approx(metrics.f1_score(targets, guesses, average="macro"))
        assert -1 <= found.mcc.low <= found.mcc.value + 1e-12
        assert found.mcc.value - 1e-12 <= found.mcc.high <= 1
        quick = classification.measures(logits, targets)
        assert quick == pytest.approx(
            {"accuracy": found.accuracy.value, "macro_f1": found.macro_f1.value, "mcc": found.mcc.value}
        )


def test_the_loss_is_of_the_logits_divided_by_the_temperature() -> None:
    for seed in range(20):
        logits, targets = single(seed)
        scores = np.exp(logits / 2.5)
        scores /= scores.sum(1, keepdims=True)
        size = logits.shape[1]
        found = classification.report(logits, targets, names(size), uncut(len(targets)), temperature=2.5)
        assert found.loss == pytest.approx(metrics.log_loss(targets, scores, labels=range(size)))
        assert "at temperature 2.5" in str(found)


@pytest.mark.parametrize("always", [0, 1])
def test_one_prediction_for_all_texts_has_no_correlation(always: int) -> None:
    logits = np.eye(2)[np.full(6, always)]
    mixed = classification.report(logits, np.array([0, 1, 0, 1, 1, 0]), names(2), uncut(6))
    same = classification.report(logits, np.full(6, always), names(2), uncut(6))
    assert (mixed.mcc.value, mixed.mcc.low, mixed.mcc.high, mixed.recall[f"label {always}"]) == (0, 0, 0, 1)
    assert (same.mcc.value, same.accuracy.value, same.macro_f1.value) == (0, 1, 1)


def test_the_correlation_of_a_perfect_and_of_a_reversed_model() -> None:
    targets = np.array([0, 1, 0, 1, 1])
    assert classification.measures(np.eye(2)[targets], targets)["mcc"] == pytest.approx(1)
    assert classification.measures(np.eye(2)[1 - targets], targets)["mcc"] == pytest.approx(-1)


def test_a_report_of_many_labels_draws_the_same_resamples_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    targets = random.integers(0, 20, 300)
    case = random.normal(size=(300, 20)) + 2 * np.eye(20)[targets], targets, names(20), uncut(300)
    at_once = classification.report(*case)
    monkeypatch.setattr("clozeline.evaluate.classification.CELLS", 20 * 20 * 333)
    assert classification.report(*case).as_dict() == at_once.as_dict()


@pytest.mark.parametrize("size", [2, 15, 50])
def test_a_figure_is_a_picture_and_replaces_the_old_one_whole(size: int, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    report = classification.report(random.normal(size=(90, size)), np.arange(90) % size, names(size), uncut(90))
    report.figure(tmp_path / "new" / "figure.png")
    assert (tmp_path / "new" / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["figure.png"]


def test_the_accuracy_counted_is_the_one_reported() -> None:
    logits, targets = single(3)
    counted = classification.counted(logits, targets)
    assert (counted.name, counted.rows.shape) == ("accuracy", (len(targets), 2))
    assert counted.value == counted.interval().value == metrics.accuracy_score(targets, logits.argmax(1))


def test_an_interval_of_sums_does_not_depend_on_how_many_resamples_are_drawn_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = np.stack([np.arange(50), np.ones(50)], 1)
    at_once = of_sums(rows, lambda sums: sums[:, 0] / sums[:, 1])
    monkeypatch.setattr("clozeline.evaluate.intervals.CELLS", 333)
    assert Counted("mean", rows, lambda sums: sums[:, 0] / sums[:, 1]).interval() == at_once


def test_several_labels_score_as_scikit_learn_has_them() -> None:
    for seed in range(60):
        logits, targets = several(seed)
        given, size = logits >= 0, logits.shape[1]
        found = multilabel.report(logits, targets, names(size), uncut(len(targets)))
        assert found.micro_f1.value == pytest.approx(metrics.f1_score(targets, given, average="micro", zero_division=0))
        assert found.exact.value == pytest.approx(metrics.accuracy_score(targets, given))
        parts = metrics.precision_recall_fscore_support(targets, given, zero_division=0)
        ours = np.array([[each.precision, each.recall, each.f1, each.gold] for each in found.scores.values()]).T
        assert ours.tolist() == [pytest.approx(part.tolist()) for part in parts]
        assert [each.predicted for each in found.scores.values()] == given.sum(0).tolist()
        present = (targets.sum(0) + given.sum(0)) > 0
        assert found.macro_f1.value == pytest.approx(parts[2][present].mean() if present.any() else 0)
        scores = 1 / (1 + np.exp(-logits))
        losses = [metrics.log_loss(targets[:, at], scores[:, at], labels=[0, 1]) for at in range(size)]
        assert found.loss == pytest.approx(np.mean(losses))
        for interval in (found.micro_f1, found.macro_f1, found.exact):
            assert 0 <= interval.low <= interval.value + 1e-12
            assert interval.value - 1e-12 <= interval.high <= 1
        quick = {"micro_f1": found.micro_f1.value, "macro_f1": found.macro_f1.value, "exact": found.exact.value}
        assert multilabel.measures(logits, targets) == pytest.approx(quick)
        assert multilabel.counted(logits, targets).interval() == found.micro_f1


def test_a_label_is_given_from_the_threshold_on() -> None:
    logits = np.log(np.array([[0.3, 0.7]]) / np.array([[0.7, 0.3]]))
    targets = np.ones((1, 2))
    assert multilabel.report(logits, targets, names(2), uncut(1), threshold=0.31).micro_f1.value == pytest.approx(2 / 3)
    assert multilabel.report(logits, targets, names(2), uncut(1), threshold=0.29).micro_f1.value == 1
    assert multilabel.report(np.zeros((1, 2)), targets, names(2), uncut(1)).exact.value == 1


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0, 50.0, math.nan])
def test_a_threshold_that_is_no_score_is_refused(threshold: float) -> None:
    with pytest.raises(InputError, match=r"a score between 0 and 1, such as 0\.5"):
        multilabel.counted(np.zeros((2, 2)), np.ones((2, 2)), threshold)


def test_large_logits_do_not_overflow_the_loss_of_several_labels() -> None:
    found = multilabel.report(np.array([[1e4, -1e4]]), np.array([[0, 0]]), names(2), uncut(1))
    assert found.loss == 5e3


def test_texts_without_labels_and_without_predictions_are_right() -> None:
    found = multilabel.report(np.full((4, 3), -5.0), np.zeros((4, 3)), names(3), uncut(4))
    assert (found.micro_f1.value, found.macro_f1.value, found.exact.value) == (0, 0, 1)


def test_a_label_neither_there_nor_given_does_not_count_in_the_mean() -> None:
    targets = np.array([[1, 0, 1], [1, 0, 0]])
    found = multilabel.report(np.where([[1, 0, 0], [1, 0, 1]], 5.0, -5.0), targets, names(3), uncut(2))
    assert (found.macro_f1.value, found.scores["label 1"].f1) == (1 / 2, 0)


def test_reports_fit_into_json_and_say_what_was_cut() -> None:
    cut, rows = np.array([0, 7, 3]), np.eye(3)
    for report in (
        classification.report(rows, np.arange(3), names(3), cut),
        multilabel.report(rows, rows, names(3), cut),
        choices.report(rows, np.arange(3), cut),
    ):
        found = report.as_dict()
        assert json.loads(json.dumps(found)) == found
        assert (found["truncated_texts"], found["truncated_tokens"]) == (2, 10)
        assert "2 texts truncated by 10 tokens" in str(report)


def test_choices_that_are_not_there_are_never_chosen() -> None:
    gone = -math.inf
    scores = np.array([[-5.0, -7.0, gone, gone], [1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 1.0, gone]])
    found = choices.report(scores, np.array([0, 3, 2]), np.array([[0, 0, 0, 0], [0, 9, 1, 0], [0, 0, 0, 0]]))
    assert found.accuracy.value == pytest.approx(2 / 3)
    assert found.chance == pytest.approx((1 / 2 + 1 / 4 + 1 / 3) / 3)
    assert (found.questions, found.truncated_texts, found.truncated_tokens) == (3, 2, 10)
    assert found.accuracy == choices.counted(scores, np.array([0, 3, 2])).interval()
    assert choices.measures(scores, np.array([0, 3, 2])) == {"accuracy": found.accuracy.value}
