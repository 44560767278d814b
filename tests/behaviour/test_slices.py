"""A planted weakness is found and named, nothing is named where there is none, and the keyword baseline is the paper's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

import clozeline as cl
from clozeline.behaviour import slices as module
from clozeline.behaviour.keywords import CONTRAST, NEGATION, dealt, having, keyword_classes, keywords
from clozeline.behaviour.slices import Slices, slices
from clozeline.data.readers import Columns, examples
from clozeline.errors import InputError
from helpers import SIGNS, as_trained, reviews, write_csv

OTHER = dict(zip(SIGNS, reversed(SIGNS), strict=True))
SOURCES = ("post", "shop", None)


def write_json(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 texts the model reads right, and 60 that say "never" or "does n't" and so mean the opposite."""
    sure = reviews(240, seed=5)
    plain: list[Mapping[str, object]] = [{"text": text, "label": label, "source": "shop"} for text, label in sure]
    turned = [
        {"text": f"w1 {('Never', 'does n’t')[at % 2]} {text}", "label": OTHER[label], "source": SOURCES[at % 3]}
        for at, (text, label) in enumerate(reviews(60, seed=6))
    ]
    return write_json(tmp_path_factory.mktemp("data") / "rows.jsonl", [*plain, *turned])


@pytest.fixture(scope="module")
def found(trained: Path, data: Path) -> Slices:
    return slices(cl.load(trained), data, by="source")


def test_the_planted_weakness_is_the_worst_slice(found: Slices, trained: Path, data: Path) -> None:
    read = list(examples(data, labelled=True))
    said = cl.load(trained).predict([each.text for each in read])
    right = np.array([guess.label == each.label for guess, each in zip(said, read, strict=True)])
    worst = found.worst[0]
    assert (worst.name, worst.rows) == ("a negation word", 60) and right[:240].mean() > 0.95 > 0.1 > right[240:].mean()
    assert worst.accuracy.value == pytest.approx(right[240:].mean()) and worst.rest == pytest.approx(right[:240].mean())
    assert worst.excess == pytest.approx(60 * (right[:240].mean() - right[240:].mean()))
    assert worst.difference.high < -0.8 and worst.corrected < 1e-6
    assert {each.name for each in found.worst} >= {"a negation word", "source post", "source -"}
    assert found.accuracy.value == pytest.approx(right.mean()) and found.wrong == (~right).sum()
    assert [each.excess for each in found.worst] == sorted((each.excess for each in found.worst), reverse=True)
    surest = sorted((guess.score for guess, ok in zip(said, right, strict=True) if not ok), reverse=True)
    assert [each.score for each in found.errors] == pytest.approx(surest[:10])
    for each in found.errors:
        at = int(each.place.rpartition(" ")[2]) - 1
        assert (each.text, each.label, each.predicted) == (read[at].text, read[at].label, said[at].label)


def test_the_slices_of_a_kind_share_the_texts_out(found: Slices) -> None:
    by_kind: dict[str, list[module.Slice]] = {}
    for each in found.slices:
        by_kind.setdefault(each.kind, []).append(each)
        assert each.accuracy.low <= each.accuracy.value <= each.accuracy.high
        assert each.difference.low <= each.difference.value <= each.difference.high
        assert 0 <= each.p <= each.corrected <= 1
    assert list(by_kind) == ["length", "label", "column source", "negation", "keywords"], "no text contrasts or is cut"
    for kind in ("length", "label", "column source", "keywords"):
        assert sum(each.rows for each in by_kind[kind]) == 300
        right = sum(each.rows * each.accuracy.value for each in by_kind[kind])
        assert right / 300 == pytest.approx(found.accuracy.value)
    assert [(each.name, each.rows) for each in by_kind["column source"]] == [
        ("source shop", 260), ("source post", 20), ("source -", 20)
    ]  # fmt: skip
    assert all(40 < each.rows < 110 for each in by_kind["length"]) and len(by_kind["length"]) == 4
    sure = sum(each.rows for each in by_kind["keywords"] if each.name == "keyword baseline right")
    assert found.keywords == sure / 300
    one, other = by_kind["label"]
    assert one.difference.value == pytest.approx(-other.difference.value) and one.p == other.p
    pairs = sum(len(by_kind[kind]) - (len(by_kind[kind]) == 2) for kind in by_kind)
    assert found.comparisons == pairs, "two slices that leave each other are one comparison"
    assert found.notes == ("All texts are in 'confidence 0.95 to 0.99': there is no rest to compare with.",)
    assert 0.95 < found.confidence < 0.99 and f"mean confidence {found.confidence:.4f}" in str(found)


def test_a_band_of_confidence_holds_its_lower_end_and_is_never_the_worst() -> None:
    sure = np.array([0.2, 0.6, 0.79, 0.8, 0.95, 0.99, 1.0])
    parts = list(module._bands(sure))
    assert [np.flatnonzero(part.holds).tolist() for part in parts] == [[0], [1, 2], [3], [4], [5, 6]]
    assert [part.name.removeprefix("confidence ") for part in parts] == [
        "below 0.6", "0.6 to 0.8", "0.8 to 0.95", "0.95 to 0.99", "0.99 and above"
    ]  # fmt: skip
    sure, right = np.repeat([0.55, 0.98], 100), np.arange(200) >= 50
    (low, high), comparisons = module._compared(list(module._bands(sure)), right, sure, [])
    assert low.worse and comparisons == 1 and low.confidence == pytest.approx(0.55)
    assert module._worst([low, high]) == []


def test_it_says_so_prints_is_json_and_a_picture(found: Slices, tmp_path: Path) -> None:
    shown, kept = str(found), json.loads(json.dumps(found.as_dict()))
    assert "a negation word: right for" in shown and "of the rest, " in shown and found.errors[0].place in shown
    assert f"corrected for {found.comparisons} comparisons" in shown
    assert kept["worst"][0] == "a negation word" and len(kept["slices"]) == len(found.slices)
    worst = next(each for each in kept["slices"] if each["name"] == "a negation word")
    assert worst["worse"] is True and len(worst["accuracy_interval"]) == len(worst["difference_interval"]) == 2
    found.figure(tmp_path / "new" / "slices.png")
    assert (tmp_path / "new" / "slices.png").read_bytes().startswith(b"\x89PNG")


def test_where_nothing_is_worse_nothing_is_named(trained: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", reviews(200, seed=8, shortest=4, longest=4))
    found = slices(cl.load(trained), path, worst=1, examples=0)
    assert found.worst == () and "No slice is worse than the rest by more than chance" in str(found)
    assert found.errors == () and "errors:" not in str(found)
    assert found.notes[0].startswith("All texts are in '4 tokens', ") and found.notes[0] in str(found)


def test_chance_is_named_in_one_of_twenty_sets_at_most() -> None:
    named, random = 0, np.random.default_rng(0)
    for _ in range(300):
        right, sure = random.random(400) < 0.85, np.full(400, 0.9)
        kinds = {"a": 12, "b": 4, "c": 2}
        parts = [
            module._Part(kind, f"{kind} {value}", held == value)
            for kind, size in kinds.items()
            for held in [random.integers(0, size, 400)]
            for value in range(size)
        ]
        some, comparisons = module._compared(parts, right, sure, [])
        assert comparisons == 17
        named += any(each.corrected < module.CHANCE for each in some)
    assert named <= 24, "of 300 sets, 15 are expected at most"


def test_rare_values_are_other_and_counted(trained: Path, tmp_path: Path) -> None:
    rows = [
        {"text": text, "label": label, "site": f"s{at % 25}", "year": (2001, 2001.0, 2002)[at % 3], "rare": at}
        for at, (text, label) in enumerate(reviews(300, seed=5))
    ]
    found = slices(cl.load(trained), write_json(tmp_path / "rows.jsonl", rows), by=["site", "year", "rare", "site"])
    sizes = {
        each.name: each.rows for each in found.slices if each.kind in ("column site", "column year", "column rare")
    }
    assert len(sizes) == 21 + 2 and sizes["site: other"] == 60 and sizes["year 2001"] == 200
    assert found.notes[:2] == (
        '"site: other" is 5 of 25 values, which have fewer than 10 texts or come after the 20 most frequent.',
        '"rare: other" is 300 of 300 values, which have fewer than 10 texts.',
    )
    assert "'rare: other'" in found.notes[2]


def test_one_text_and_one_label_and_values_that_are_missing(trained: Path, tmp_path: Path) -> None:
    model, one = cl.load(trained), write_csv(tmp_path / "one.csv", reviews(1))
    found = slices(model, one)
    assert found.slices == () and found.examples == 1 and found.comparisons == 0 and "No slice is worse" in str(found)
    found.figure(tmp_path / "one.png")
    rows = [
        {"text": text, "label": "positive", "year": None if at < 11 else at % 2}
        for at, (text, _) in enumerate(reviews(40))
    ]
    found = slices(model, write_json(tmp_path / "rows.jsonl", rows), by="year")
    assert [(each.name, each.rows) for each in found.slices if each.kind == "column year"] == [
        ("year 1", 15), ("year 0", 14), ("year -", 11)
    ]  # fmt: skip
    assert found.keywords == 1 and "'label positive'" in found.notes[0]


def test_a_pair_that_is_cut(tiny: Path, tmp_path: Path) -> None:
    task = cl.TextClassification(labels=list(SIGNS))
    model = cl.load(as_trained(cl.load(tiny, task)._bundle, tmp_path / "model"))
    rows = [
        {"a": "w1 " * (90 if at < 12 else 3), "b": f"w{at % 40} but\nno", "label": list(SIGNS)[at % 2]}
        for at in range(40)
    ]
    path = write_json(tmp_path / "rows.jsonl", rows)
    found = slices(model, path, text="a", pair="b", examples=40)
    assert found.accuracy.value == model.evaluate(path, text="a", pair="b").accuracy.value
    assert found.truncated_texts == 12 and "12 texts truncated" in str(found)
    assert {each.name: each.rows for each in found.slices}["cut to fit"] == 12
    assert "'a negation word', 'a contrast word'" in found.notes[0]
    assert all(len(each.text) <= module.START and "\n" not in each.text for each in found.errors)
    assert all("w1 | w" in each.text or each.text.endswith("…") for each in found.errors)
    assert len(found.errors) == found.wrong == 40 - round(40 * found.accuracy.value)


def test_words_that_negate_and_contrast() -> None:
    texts = ["I did NOT see", "It isn't", "it is n’t", "cannot", "notable", "knot", "a note, nor", "don t", "Dont!", ""]
    assert having(texts, NEGATION).tolist() == [True, True, True, True, False, False, True, False, True, False]
    texts = ["Good, but", "a butter", "in  spite\nof it", "yet", "spite of", "YETI", "thoughtful"]
    assert having(texts, CONTRAST).tolist() == [True, False, True, True, False, False, False]


def test_the_keyword_baseline_is_naive_bayes_over_words_that_are_there() -> None:
    bayes = pytest.importorskip("sklearn.naive_bayes")
    random = np.random.default_rng(0)
    classes = random.integers(0, 3, 200)
    drawn = random.integers(0, 40, (200, 8))
    texts = [
        (" ".join(f"w{word}" for word in row), f"w{row[0] % 5 + at}") for at, row in zip(classes, drawn, strict=True)
    ]
    found = keywords(texts)
    there = np.zeros((200, found.many))
    there[found.text_H, found.word_H] = 1
    fold = dealt(found.same, classes, 5)
    ours = keyword_classes(found, classes, 3, fold)
    for at in range(5):
        learned, known = fold != at, there[fold != at].any(0)
        # as ours: words never seen say nothing, and one is added to each class too
        theirs = bayes.MultinomialNB(class_prior=(np.bincount(classes[learned]) + 1) / (learned.sum() + 3))
        theirs.fit(there[learned], classes[learned])
        odds = theirs.feature_log_prob_ * known
        expected = (there[~learned] @ odds.T + theirs.class_log_prior_).argmax(1)
        assert np.array_equal(ours[~learned], expected)
    assert (ours == classes).mean() > 0.45, "of three"


def test_the_keyword_baseline_never_saw_the_label_that_it_tells() -> None:
    random = np.random.default_rng(1)
    classes = random.integers(0, 2, 400)
    texts = [(f"only{at} here{at}",) for at in [*range(200), *reversed(range(200))]]
    found = keywords(texts)
    guessed = keyword_classes(found, classes, 2, dealt(found.same, classes, 5))
    assert (guessed == classes).mean() == pytest.approx(0.5, abs=0.08)


def test_what_is_refused(trained: Path, tiny: Path, data: Path, tmp_path: Path) -> None:
    model = cl.load(trained)
    for arguments, message in (
        (dict(by=["sorce"]), r"rows\.jsonl line 1 has no column 'sorce' to slice by: did you mean 'source'"),
        (dict(text="txt"), "no column 'txt' for the text: did you mean 'text'"),
        (dict(worst=0), "worst is 0 and examples 10"),
    ):
        with pytest.raises(InputError, match=message):
            slices(model, data, **arguments)
    with pytest.raises(InputError, match="standard input does not allow"):
        module._values("-", ["source"], Columns())
    for rows, message in (
        ([{"text": "w1", "label": "postive"}], r"line 1: unknown label 'postive'; did you mean 'positive'"),
        (
            [{"text": "w1", "label": {"positive": 0.5, "negative": 0.5}}],
            r"line 1: the label is .* one class for each text",
        ),
    ):
        with pytest.raises(InputError, match=message):
            slices(model, write_json(tmp_path / "rows.jsonl", rows))
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    with pytest.raises(InputError, match=r"empty\.csv is empty"):
        slices(model, empty)
    with pytest.raises(InputError, match="is a bare encoder and cannot evaluate"):
        slices(cl.load(tiny), data)
    many = cl.load(tiny, cl.MultiLabelClassification(labels=list(SIGNS)))
    with pytest.raises(InputError, match=r"multi-label.* slices are of text classification"):
        slices(cl.load(as_trained(many._bundle, tmp_path / "many")), data)
