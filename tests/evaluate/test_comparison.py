"""Two models on the same examples: equal ones are told apart as rarely as promised, different ones reliably."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from clozeline.errors import InputError
from clozeline.evaluate import answers, classification, entities, multilabel, regression
from clozeline.evaluate.compare import SWAPS, compare, holm
from clozeline.evaluate.intervals import Counted

BOTH = ("old", "new")


def accuracy(right: np.ndarray) -> Counted:
    """Of a model that is right where this says so."""
    return classification.counted(np.eye(2)[right.astype(int)], np.ones(len(right), np.int64))


def noisy(targets: np.ndarray, noise: float, random: np.random.Generator, scale: float = 1.0) -> Counted:
    return regression.counted(scale * (targets + noise * random.normal(size=targets.shape)), targets)


def test_a_model_does_not_differ_from_itself() -> None:
    random = np.random.default_rng(0)
    tags = [[["O", "B-a", "I-a"][at] for at in random.integers(0, 3, 5)] for _ in range(40)]
    logits, targets = random.normal(size=(40, 3)), random.integers(0, 2, (40, 3))
    golds = {str(at): [f"a{at % 3}"] for at in range(40)}
    guessed = {str(at): f"a{at % 2}" for at in range(40)}
    for same in (
        classification.counted(logits, targets[:, 0]),
        multilabel.counted(logits, targets),
        regression.counted(logits, targets),
        entities.counted(tags, tags[::-1]),
        answers.counted(golds, guessed, "exact"),
    ):
        found = compare(same, same, BOTH, ["x", "y"] * 20)
        for each in (found.overall, *found.slices.values()):
            assert (each.difference.value, each.difference.low, each.difference.high) == (0, 0, 0)
            assert (each.p, each.corrected) == (1, 1)
        assert found.overall.a == pytest.approx(same.value)


def test_every_metric_to_compare_by_is_the_one_of_a_check() -> None:
    random = np.random.default_rng(1)
    logits, targets = random.normal(size=(80, 4)), random.integers(0, 3, 80)
    for metric, value in classification.measures(logits, targets).items():
        assert classification.counted(logits, targets, metric).value == pytest.approx(value)
    sets = (random.random((80, 4)) < [0.5, 0.2, 0.8, 0]).astype(int)
    for metric, value in multilabel.measures(logits - [0, 0, 0, 9], sets).items():
        assert multilabel.counted(logits - [0, 0, 0, 9], sets, metric=metric).value == pytest.approx(value)
    tags = [[["O", "B-a", "I-a"][at] for at in random.integers(0, 3, 5)] for _ in range(40)]
    for metric, value in entities.measures(tags, tags[::-1]).items():
        assert entities.counted(tags, tags[::-1], metric).value == pytest.approx(value)


def test_p_is_the_share_of_all_swaps() -> None:
    old, new = np.zeros(9, bool), np.array([1, 1, 1, 1, 1, 1, 0, 0, 0], bool)
    old[6] = True  # of the seven that differ, six speak for the new model
    found = compare(accuracy(old), accuracy(new), BOTH).overall
    signs = np.array(list(itertools.product([-1, 1], repeat=7))).sum(1)
    assert found.difference.value == pytest.approx(5 / 9)
    assert found.p == pytest.approx((np.abs(signs) >= 5).mean(), abs=0.015)  # 16 / 128; standard error 0.005


@pytest.mark.parametrize("kind", ["accuracy", "pearson", "pearson of other scale"])
def test_equal_models_are_told_apart_in_one_of_twenty_tests(kind: str) -> None:
    random, values = np.random.default_rng(0), []
    for _ in range(150):
        if kind == "accuracy":
            pair = [accuracy(random.random(150) < 0.7) for _ in range(2)]
        else:
            targets = random.normal(size=(60, 1))
            pair = [noisy(targets, 1, random, scale) for scale in (1, 7 if "scale" in kind else 1)]
        values.append(compare(pair[0], pair[1], BOTH).overall.p)
    # a binomial of 150 tests has a standard error of 0.018 at 0.05 and of 0.04 at 0.5
    assert 0.005 < np.mean(np.array(values) <= 0.05) < 0.11
    assert 0.38 < np.mean(np.array(values) <= 0.5) < 0.62


def test_a_true_difference_is_found() -> None:
    random = np.random.default_rng(0)
    old = random.random(1000) < 0.70
    new = old | (random.random(1000) < 0.2)  # right on 0.76
    found = compare(accuracy(old), accuracy(new), BOTH).overall
    assert found.p == 1 / (1 + SWAPS)
    assert 0 < found.difference.low < found.difference.value < found.difference.high
    targets = random.normal(size=(500, 2))
    worse = compare(noisy(targets, 0.5, random), noisy(targets, 1, random, 9), BOTH).overall
    assert worse.p < 0.001
    assert worse.difference.high < 0


def test_the_paired_interval_is_narrower_than_two_apart() -> None:
    random = np.random.default_rng(0)
    old = random.random(800) < 0.7
    new = old ^ (random.random(800) < 0.05)
    a, b = accuracy(old), accuracy(new)
    paired = compare(a, b, BOTH).overall.difference
    change = new.astype(float) - old
    assert paired.high - paired.low == pytest.approx(3.92 * change.std() / 800**0.5, rel=0.15)
    wide, wider = (each.interval().high - each.interval().low for each in (a, b))
    apart = np.hypot(wide, wider)
    assert paired.high - paired.low < apart / 2


def test_a_slice_is_compared_as_if_it_stood_alone() -> None:
    random = np.random.default_rng(0)
    kinds = random.choice(["long", "short", "odd"], 300, p=[0.5, 0.45, 0.05]).tolist()
    which = np.array(kinds)
    old = random.random(300) < 0.6
    new = np.where(which == "long", old | (random.random(300) < 0.5), old & (random.random(300) < 0.8))
    found = compare(accuracy(old), accuracy(new), BOTH, kinds)
    assert list(found.slices) == sorted(found.slices, key=lambda kind: found.slices[kind].difference.value)
    assert list(found.slices)[-1] == "long"
    for kind, each in found.slices.items():
        chosen = which == kind
        alone = compare(accuracy(old[chosen]), accuracy(new[chosen]), BOTH).overall
        assert (each.n, each.a, each.b) == (chosen.sum(), old[chosen].mean(), new[chosen].mean())
        assert (each.difference, each.p) == (alone.difference, alone.p)
        assert each.corrected >= each.p
    assert sum(each.n for each in found.slices.values()) == found.overall.n == 300
    shown = str(found)
    assert "(Holm)" in shown
    assert [line.split()[0] for line in shown.splitlines()[2:6]] == ["all", *found.slices]
    assert json.loads(json.dumps(found.as_dict())) == found.as_dict()
    assert found.as_dict()["slices"]["long"]["difference"] == found.slices["long"].difference.value


def test_p_values_are_corrected_step_by_step() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_without_slices_nothing_is_corrected() -> None:
    found = compare(accuracy(np.arange(9) > 3), accuracy(np.arange(9) > 2), BOTH)
    assert found.slices == {}
    assert found.overall.corrected == found.overall.p
    assert "Holm" not in str(found)


def test_swaps_are_the_same_when_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    a, b = (accuracy(random.random(64) < share) for share in (0.6, 0.75))
    at_once = compare(a, b, BOTH).overall
    monkeypatch.setattr("clozeline.evaluate.compare.CELLS", 64 * 100)
    in_parts = compare(a, b, BOTH).overall
    assert in_parts.difference == at_once.difference
    assert in_parts.p == pytest.approx(at_once.p, abs=0.03)


@pytest.mark.parametrize(
    ("examples", "name", "slices", "message"),
    [
        (5, "accuracy", None, "old is scored on 6 examples and new on 5"),
        (6, "entity F1", None, "old is scored by accuracy and new by entity F1"),
        (6, "accuracy", ["a"] * 5, "5 names of slices for 6 examples"),
        (300, "accuracy", [str(at) for at in range(300)], "There are 300 slices, such as '0', and at most 200"),
    ],
)
def test_what_cannot_be_compared_is_refused(examples: int, name: str, slices: list[str] | None, message: str) -> None:
    a, b = accuracy(np.ones(max(6, examples), bool)), accuracy(np.ones(examples, bool))
    with pytest.raises(InputError, match=message):
        compare(a, Counted(name, b.rows, b.measure), BOTH, slices)
