"""Planted wrong labels are found, by classifiers that saw neither the text nor its copy; thresholds are the paper's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import clozeline as cl
from clozeline.behaviour.keywords import dealt, keywords
from clozeline.behaviour.label_errors import confident, label_errors, out_of_fold, wrong_share
from clozeline.data.readers import examples
from clozeline.errors import InputError
from helpers import SIGNS, Row, reviews, write_csv


def flipped(rows: list[Row], many: int, seed: int = 0) -> tuple[list[Row], set[int]]:
    """The rows with some labels turned, and which."""
    turned = set(np.random.default_rng(seed).choice(len(rows), many, replace=False).tolist())
    other = dict(zip(SIGNS, reversed(SIGNS), strict=True))
    return [(text, other[label] if at in turned else label) for at, (text, label) in enumerate(rows)], turned


def line(place: str) -> int:
    """The row, from 0, of a place in a CSV file."""
    return int(place.rpartition(" ")[2]) - 2


def test_planted_labels_are_the_first_candidates(trained: Path, tmp_path: Path) -> None:
    rows, turned = flipped(reviews(400, seed=5), 20)
    found = label_errors(cl.load(trained), write_csv(tmp_path / "rows.csv", rows), top=20)
    hits = [line(each.place) in turned for each in found.suspects]
    assert sum(hits) >= 18 and all(hits[:10])
    assert found.share == pytest.approx(0.05, abs=0.02) and found.accuracy.value == pytest.approx(0.95, abs=0.02)
    assert found.examples == 400 and sum(found.counts.values()) == 400 and "is fine-tuned" in found.notes[0]
    for each in found.suspects:
        assert (each.text, each.label) == rows[line(each.place)] and each.suggested != each.label
        assert each.margin == pytest.approx(each.suggested_score - each.score) and each.pair is None
    margins = [each.margin for each in found.suspects]
    assert margins == sorted(margins, reverse=True)
    first = found.suspects[0]
    assert f"{first.label} {first.score:.4f}, rather {first.suggested} {first.suggested_score:.4f}" in str(found)
    assert f"{found.found} of 400 texts" in str(found) and first.place in str(found)
    kept = json.loads(json.dumps(found.as_dict()))
    assert kept["suspects"][0]["place"] == first.place and len(kept["accuracy_interval"]) == 2


def test_planted_labels_in_real_sentences(minilm: Path, data: Path, tmp_path: Path) -> None:
    rows = [(each.text, list(SIGNS)[each.label == "1"]) for each in examples(data / "sst2" / "dev.tsv", labelled=True)]
    rows, turned = flipped(rows, 40)
    found = label_errors(cl.load(minilm), write_csv(tmp_path / "rows.csv", rows), top=60)
    hits = sum(line(each.place) in turned for each in found.suspects)
    assert len(rows) == 872 and hits >= 14, f"{hits} of 60; by chance it would be 3"
    assert found.accuracy.value > 0.7 and found.share > 40 / 872


def test_a_text_counts_as_the_likeliest_label_that_reaches_its_threshold() -> None:
    scores = np.array(
        [[0.9, 0.1, 0.0], [0.5, 0.3, 0.2], [0.2, 0.6, 0.2], [0.3, 0.4, 0.3], [0.1, 0.3, 0.6], [0.8, 0.1, 0.1]]
    )
    classes = np.array([0, 0, 1, 1, 2, 2])
    thresholds, counted_as = confident(scores, classes)
    assert thresholds == pytest.approx([0.7, 0.5, 0.35])
    assert counted_as.tolist() == [0, -1, 1, -1, 2, 0]
    assert wrong_share(counted_as, classes, 3) == pytest.approx(1 / 6), "half of the texts of the third label"
    assert wrong_share(np.full(6, -1), classes, 3) == 0


def test_scores_are_those_of_scikit_learn_and_no_text_sees_its_own_label() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(0)
    x, y, fold = random.standard_normal((60, 4)).astype(np.float32), random.integers(0, 3, 60), np.arange(60) % 4
    x[:, 0], x[:, 3] = x[:, 0] + y, 1
    scores = out_of_fold(x, y, 3, fold)
    learned = fold != 1
    scale = np.where(x[learned].std(0) < 1e-9, 1, x[learned].std(0)) * 2
    inputs = (x - x[learned].mean(0)) / scale
    theirs = linear.LogisticRegression(tol=1e-8, max_iter=1000).fit(inputs[learned], y[learned])
    np.testing.assert_allclose(scores[~learned], theirs.predict_proba(inputs[~learned]), atol=1e-3)
    y[7] = (y[7] + 1) % 3
    changed = np.abs(out_of_fold(x, y, 3, fold) - scores).max(1) > 0
    assert not changed[fold == 3].any() and changed[fold != 3].all()


def test_copies_of_a_text_are_in_one_fold_and_folds_have_like_shares() -> None:
    rows = reviews(200)
    texts = [(text,) for text, _ in rows] + [(text.upper() + " !",) for text, _ in rows[49::-1]]
    classes = np.array([label == "positive" for _, label in [*rows, *rows[49::-1]]]).astype(int)
    same = keywords(texts).same
    fold = dealt(same, classes, 5, seed=1)
    assert np.array_equal(fold[49::-1], fold[200:]) and not np.array_equal(fold, dealt(same, classes, 5, seed=2))
    for label in (0, 1):
        counts = np.bincount(fold[:200][classes[:200] == label], minlength=5)
        assert counts.max() - counts.min() <= 2
    pairs = keywords([("a b", "c"), ("a", "b c"), ("A  b.", "c"), ("", ""), ("...", "")]).same
    assert len({*pairs.tolist()}) == 4 and pairs[0] == pairs[2], "marks alone are words"


def test_pairs_long_texts_rare_labels_and_other_columns(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"a": "w1 " * (70 if at == 3 else 2), "b": f"w{at}", "kind": at % 2 if at else 7} for at in range(24)]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = label_errors(cl.load(tiny), path, text="a", pair="b", label="kind", folds=3, top=0)
    assert found.labels == ("0", "1", "7") and found.suspects == () and found.truncated_texts == 1
    assert found.notes == ("Labels with fewer texts than folds, hard to judge: '7'.",) and found.notes[0] in str(found)
    assert found.counts == {"0": 11, "1": 12, "7": 1}


def test_what_is_refused(trained: Path, tmp_path: Path) -> None:
    model, path = cl.load(trained), write_csv(tmp_path / "rows.csv", reviews(12))
    empty, soft = tmp_path / "empty.csv", tmp_path / "soft.jsonl"
    empty.write_text("")
    soft.write_text('{"text": "w1", "label": {"a": 1}}\n')
    for arguments, message in (
        (dict(folds=1), "folds is 1; give at least 2"),
        (dict(top=-1), "top is -1; give the number"),
        (dict(folds=13), "has 12 different texts for 13 folds"),
        (dict(label="lable"), "no column 'lable' for the label: did you mean 'label'"),
    ):
        with pytest.raises(InputError, match=message):
            label_errors(model, path, **arguments)
    with pytest.raises(InputError, match=r"empty\.csv is empty"):
        label_errors(model, empty)
    with pytest.raises(InputError, match="line 1: the label in column 'label' is"):
        label_errors(model, soft)
    with pytest.raises(InputError, match="one label only, 'x'"):
        label_errors(model, write_csv(tmp_path / "one.csv", [("w1", "x")] * 9))
