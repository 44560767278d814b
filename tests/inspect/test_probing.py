"""A probe finds a label where it is, and only there; its classifier is the textbook's."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

import clozeline as cl
from clozeline.errors import InputError
from clozeline.inspect.probing import Probe, _folds, fitted, probe
from helpers import reviews, write_csv


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "train.csv", reviews(150, seed=5))


@pytest.fixture(scope="module")
def found(trained: Path, data: Path) -> Probe:
    return probe(cl.load(trained), data)


def test_a_label_is_read_where_the_model_has_put_it(found: Probe) -> None:
    assert found.labels == ("negative", "positive") and (found.texts, found.tested, found.how) == (150, 150, "5 folds")
    cls, mean = ([each.value for each in found.right[pool]] for pool in ("cls", "mean"))
    assert len(cls) == len(mean) == 3, "the embedding and two layers"
    assert cls[2] > 0.95 and cls[0] == pytest.approx(found.majority, abs=0.02), "[CLS] knows nothing before it reads"
    assert found.majority == pytest.approx(0.5, abs=0.02)
    for pool in ("cls", "mean"):
        assert np.mean(found.control[pool]) == pytest.approx(0.5, abs=0.15)
        for each, error in zip(found.right[pool], found.errors[pool], strict=True):
            assert each.low <= each.value <= each.high
            assert error == pytest.approx((each.value * (1 - each.value) / 150) ** 0.5, abs=1e-9)


def test_the_best_layer_and_the_first_that_is_as_good(found: Probe) -> None:
    best = found.best("cls")
    assert best in (1, 2) and found.first("cls") <= best
    least = found.right["cls"][best].value - found.errors["cls"][best]
    assert found.right["cls"][found.first("cls")].value >= least
    assert all(each.value < least for each in found.right["cls"][: found.first("cls")])


def test_vectors_are_those_of_embed_and_the_test_may_be_given(trained: Path, data: Path, tmp_path: Path) -> None:
    model, rows, others = cl.load(trained), reviews(150, seed=5), reviews(40, seed=6)
    test = write_csv(tmp_path / "test.csv", others)
    apart = probe(model, data, test)
    assert (apart.texts, apart.tested, apart.how) == (190, 40, "40 of them for the test")
    for pool in ("cls", "mean"):
        x, y = (
            np.asarray(model.embed([text for text, _ in each], pool=pool, layers="all"))[:, 1]
            for each in (rows, others)
        )
        mean, spread = x.mean(0), x.std(0)
        targets = torch.tensor([label == "positive" for _, label in rows]).long()
        weight, bias = fitted(torch.from_numpy((x - mean) / spread).double(), targets, 2)
        guessed = (((y - mean) / spread) @ weight.numpy().T + bias.numpy()).argmax(1)
        right = np.mean(guessed == [label == "positive" for _, label in others])
        assert apart.right[pool][1].value == pytest.approx(right, abs=0.026)  # one text on the edge may turn


def test_the_classifier_is_that_of_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(0)
    x, y = random.standard_normal((90, 8)), random.integers(0, 3, 90)
    x[:, 0] += y
    theirs = linear.LogisticRegression(tol=1e-8, max_iter=1000).fit(x, y)
    weight, bias = fitted(torch.from_numpy(x), torch.from_numpy(y), 3)
    np.testing.assert_allclose(weight, theirs.coef_, atol=1e-3)
    np.testing.assert_allclose(
        torch.softmax(torch.from_numpy(x) @ weight.T + bias, 1), theirs.predict_proba(x), atol=1e-3
    )


def test_folds_have_like_shares_and_depend_on_the_seed() -> None:
    classes = np.repeat([0, 1, 2], [50, 31, 4])
    folds = [_folds(classes, 5, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(folds[0], folds[1]) and not np.array_equal(folds[0], folds[2])
    assert np.bincount(folds[0]).tolist() == [17] * 5
    for label in range(3):
        counts = np.bincount(folds[0][classes == label], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_a_bare_encoder_other_columns_and_long_texts(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"a": "w1 " * (70 if at == 3 else 2), "b": f"w{at % 2}", "kind": at % 2} for at in range(24)]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = probe(cl.load(tiny), path, text="a", pair="b", label="kind", folds=3, limit=20)
    assert found.labels == ("0", "1") and found.texts == 20
    assert found.right["mean"][0].value == 1, "the second word is the label"
    assert found.notes == ("1 of 20 texts lost 10 tokens at their end.",)
    assert found.notes[0] in str(found)


def test_a_view_of_a_probe(found: Probe, tmp_path: Path) -> None:
    for name in ("view.json", "view.png", "view.html"):
        found.save(tmp_path / name)
    kept = json.loads((tmp_path / "view.json").read_text())
    assert kept["cls"]["best"] == found.best("cls") and len(kept["mean"]["layers"]) == 3
    assert [panel.kind for panel in found.panels()] == ["lines", "table"]
    assert f"[CLS] is read best at layer {found.best('cls')}" in str(found)


def test_what_a_probe_refuses(trained: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    model = cl.load(trained)
    bare, one, odd = (tmp_path / f"{name}.csv" for name in ("bare", "one", "odd"))
    bare.write_text("text\ngood w1\nbad w2\n")
    with pytest.raises(InputError, match="label"):
        probe(model, bare)
    with pytest.raises(InputError, match="one label only, 'x'"):
        probe(model, write_csv(one, [("w1", "x")] * 9))
    with pytest.raises(InputError, match="unknown label 'postive'; did you mean 'positive'"):
        probe(model, data, write_csv(odd, [("w1", "postive")]))
    with pytest.raises(InputError, match="folds is 1; give at least 2"):
        probe(model, data, folds=1)
    with pytest.raises(InputError, match="has 4 texts for 5 folds"):
        probe(model, data, limit=4)
    with pytest.raises(InputError, match="limit is 0; use at least 1 text"):
        probe(model, data, limit=0)


def test_labels_with_fewer_texts_than_folds_are_said(trained: Path, tmp_path: Path) -> None:
    rows = [("good w1", "a"), ("bad w2", "b")] * 6 + [("w3 w4", "c"), ("w5", "c")]
    found = probe(cl.load(trained), write_csv(tmp_path / "few.csv", rows))
    assert "1 of 3 labels have fewer than 5 texts" in str(found)
    assert "1 of 3 labels have fewer than 5 texts" in found.panels()[0].note
