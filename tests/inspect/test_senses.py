"""A word's occurrences: found as whole words, vectors the means of their pieces, measures as they are defined."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clozeline as cl
from clozeline.bundle import Bundle
from clozeline.errors import InputError
from clozeline.evaluate.intervals import RESAMPLES
from clozeline.face import Model
from clozeline.families import FAMILIES
from clozeline.inspect.figures import _scatter as draw_scatter
from clozeline.inspect.panels import Scatter
from clozeline.inspect.senses import senses
from clozeline.inspect.separation import Sure, measures
from clozeline.predict import unit
from clozeline.tokenizer import Tokenizer
from conformance import model_type, sizes
from helpers import PLAIN, SPECIAL

VOCABULARY = [*SPECIAL, *PLAIN, "bank", "river", "##bank", "##s", "c", "+", "##+", "."]
SENTENCE = "w1 Bank w2 w3 w4 w5 bank."


def model_of(folder: Path, variant: str = "bert") -> Model:
    """A small random model that can tell contexts apart."""
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    family = FAMILIES[model_type(variant)]
    config = family.read(sizes(variant)).replace(vocab_size=len(VOCABULARY))
    network = family.build(config)
    for parameter in network.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    bundle = Bundle("tiny", family, network.eval(), Tokenizer.load(folder, config.max_length), None, [])
    return Model(bundle, "fp32", torch.device("cpu"), 0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return model_of(tmp_path_factory.mktemp("senses"))


@pytest.mark.parametrize("variant", ["bert", "roberta", "albert", "deberta-v2", "modernbert", "mpnet"])
def test_one_sentence_with_two_occurrences(tmp_path: Path, variant: str) -> None:
    model = model_of(tmp_path, variant)
    view = senses(model, SENTENCE, "bank")
    layers = model.config.layers
    assert view.cosines.shape == (layers + 1, 2, 2)
    assert [SENTENCE[each.start : each.end] for each in view.occurrences] == ["Bank", "bank"]
    assert view.groups is None
    assert 1 <= view.best <= layers
    assert view.best == 1 + view.cosines[1:, 0, 1].argmin()
    states = model.embed(SENTENCE, pool="tokens", layers="all")[0]
    for layer in range(layers + 1):
        one, other = unit(states[[2, 7], layer])
        assert view.cosines[layer, 0, 1] == pytest.approx(one @ other, abs=1e-5)
    if variant in ("deberta-v2", "modernbert"):
        assert view.cosines[0, 0, 1] == pytest.approx(1)  # whose embedding knows no position


def test_cosines_are_symmetric_and_one_with_themselves(model: Model) -> None:
    texts = [f"w{at} w{at + 1} bank w{at + 2}" for at in range(0, 30, 3)]
    view = senses(model, texts, "bank", groups=["one", "two"] * 5, neighbours=3)
    assert np.allclose(view.cosines, view.cosines.transpose(0, 2, 1))
    assert (np.diagonal(view.cosines, axis1=1, axis2=2) == 1).all()
    assert view.nearest.shape == (10, 3)
    for at, row in enumerate(view.nearest.tolist()):
        others = np.delete(view.cosines[view.best, at], at)
        assert at not in row
        assert view.cosines[view.best, at, row].tolist() == sorted(others, reverse=True)[:3]
    # distances on a map of two components are no longer than the true ones
    drawn = np.linalg.norm(view.points[:, None] - view.points, axis=-1)
    assert (drawn**2 <= 2 - 2 * view.cosines[view.best] + 1e-9).all()
    assert view.best == 1 + view.layers["separation"][1:].argmax()


def test_a_word_of_several_pieces_is_their_mean(model: Model) -> None:
    text = "w1 Riverbanks w2 riverbanks"
    view = senses(model, text, "riverbanks")
    states = model.embed(text, pool="tokens", layers="all")[0]  # [CLS] w1 river ##bank ##s w2 river ##bank ##s [SEP]
    one, other = unit(np.stack([states[2:5].mean(0), states[6:9].mean(0)]))
    assert np.allclose(view.cosines[:, 0, 1], (one * other).sum(-1), atol=1e-5)


def test_only_whole_words_are_found(model: Model) -> None:
    text = "riverbank bank banks, (BANK) bank. c++ C c++"
    found = senses(model, text, "Bank").occurrences
    assert [text[each.start : each.end] for each in found] == ["bank", "BANK", "bank"]
    assert [text[each.start : each.end] for each in senses(model, text, "c++").occurrences] == ["c++", "c++"]
    two = senses(model, "w1 w2 w1 w2 w1", "w1 w2").occurrences
    assert [(each.start, each.end) for each in two] == [(0, 5), (6, 11)]
    assert two[1].name == "w2 [w1 w2] w1"


def test_signs_are_found_too(model: Model) -> None:
    text = "w1 ☺ w2☺. ☺\ufe0f ☺☻ w3."
    view = senses(model, text, "☺")
    assert [each.start for each in view.occurrences] == [3, 7, 10, 13], "BERT's tokenizer takes the mark off"
    assert view.unknown == 4 and "In 4 of them the tokenizer does not know the word" in str(view)
    assert [each.start for each in senses(model, text, ".").occurrences] == [8, 18]
    assert senses(model, text, ".").unknown == 0


def test_random_tokens_are_the_base_line(model: Model) -> None:
    text = "w1 bank w2 bank w3"
    states = model.embed(text, pool="tokens", layers="all")[0][1:-1]
    rows = unit(states.transpose(1, 0, 2))
    alike = rows @ rows.transpose(0, 2, 1)
    pairs = ~np.eye(5, dtype=bool)
    assert np.allclose(senses(model, text, "bank").random, alike[:, pairs].mean(1), atol=1e-5)


def test_the_measures_are_those_of_their_definitions() -> None:
    random = np.random.default_rng(0)
    rows = unit(random.normal(size=(3, 9, 4)) + np.eye(3, 4)[np.arange(9) % 3] * 2)
    cosines = np.clip(rows @ rows.transpose(0, 2, 1), -1, 1)
    groups = np.arange(9) % 3
    found = measures(cosines, groups)
    for layer in range(3):
        pairs = [(a, b) for a in range(9) for b in range(9) if a != b]
        same = [cosines[layer, a, b] for a, b in pairs if groups[a] == groups[b]]
        other = [cosines[layer, a, b] for a, b in pairs if groups[a] != groups[b]]
        assert found["separation"][layer] == pytest.approx(np.mean(same) - np.mean(other))
        shapes = []
        for a in range(9):
            mean = [
                np.mean([1 - cosines[layer, a, b] for b in range(9) if groups[b] == g and a != b]) for g in range(3)
            ]
            own, nearest = mean[groups[a]], min(np.delete(mean, groups[a]))
            shapes.append((nearest - own) / max(nearest, own))
        assert found["silhouette"][layer] == pytest.approx(np.mean(shapes))


def test_resampled_measures_are_those_of_their_definition() -> None:
    random = np.random.default_rng(1)
    groups = np.array([0, 1, 0, 1, 0, 0, 1, 1, 0, 1, 1])
    rows = unit(0.4 * random.normal(size=(4, 11, 5)) + np.eye(4, 5)[groups] * np.array([0, 1, 2, 2])[:, None, None])
    cosines = rows @ rows.transpose(0, 2, 1)
    cosines[3] = cosines[2]
    draw, times = np.random.default_rng(0), np.zeros((RESAMPLES, 11), int)
    for sense in (0, 1):
        own = np.flatnonzero(groups == sense)
        times[:, own] = draw.multinomial(len(own), np.full(len(own), 1 / len(own)), RESAMPLES)
    values = []
    for row in times:
        drawn = np.repeat(np.arange(11), row)
        one, other = np.array([(a, b) for a in drawn for b in drawn if a != b]).T
        same = groups[one] == groups[other]
        values.append(cosines[:, one[same], other[same]].mean(1) - cosines[:, one[~same], other[~same]].mean(1))
    found, expected = Sure.of(cosines, groups, "separation", 2), np.array(values)
    assert found is not None
    np.testing.assert_allclose([found.low, found.high], np.percentile(expected, [2.5, 97.5], axis=0))
    np.testing.assert_allclose(found.first, np.bincount(1 + expected[:, 1:].argmax(1), minlength=4) / RESAMPLES)
    assert found.first[0] == 0 and 3 in found.alike and 0 not in found.alike
    assert Sure.of(cosines[:, :8, :8], groups[:8], "separation", 2) is None, "of one sense there are 4"


def test_how_sure_the_layer_is_stands_with_it(model: Model) -> None:
    texts = [f"w{at} w{at + 1} bank w{at + 2}" for at in range(0, 30, 3)]
    for groups, measure in ((["one", "two"] * 5, "separation"), (None, "occurrences")):
        view = senses(model, texts, "bank", groups=groups)
        assert view.sure is not None and view.measure == measure
        assert (view.sure.low < view.layers[measure] + 0.1).all() and (view.sure.low <= view.sure.high).all()
        assert view.sure.first.sum() == pytest.approx(1)
        assert f"Layer {view.best} is the best in {view.sure.first[view.best]:.0%} of 1,000 resamples" in str(view)
        assert str(view).count("before any context") == 1 + (0 in view.sure.alike)
        assert view.as_dict()["sure"]["measure"] == measure
        few = senses(model, texts[:9], "bank", groups=groups and groups[:9])
        assert (few.sure is None) == (groups is not None)
        assert ("takes 5 occurrences of each sense" in str(few)) == (groups is not None)


def test_a_sense_that_is_there_once_is_left_out_of_what_needs_two(model: Model) -> None:
    texts = ["w1 bank w2", "w3 bank w4", "w5 bank w6"]
    some = senses(model, texts, "bank", groups=["one", "one", "other"])
    assert some.alone == ("other",) and "nothing is said within it: “other”" in str(some)
    nearest = some.nearest[:2, 0]
    assert some.agreement == (nearest < 2).mean(), "of the two that could agree"
    none = senses(model, texts, "bank", groups=["one", "two", "three"])
    assert [*none.layers] == ["between senses"] and none.agreement is None
    assert "nan" not in str(none) and "within senses" not in str(none)
    assert "null" not in json.dumps([panel.as_dict() for panel in none.panels()]).replace('"ranges": null', "")


def test_groups_are_of_texts_or_of_occurrences(model: Model) -> None:
    texts = ["bank w1 bank", "w2 bank"]
    by_text = senses(model, texts, "bank", groups=["river", "money"])
    assert [each.group for each in by_text.occurrences] == ["river", "river", "money"]
    each = senses(model, texts, "bank", groups=["river", "money", "money"])
    assert [one.group for one in each.occurrences] == ["river", "money", "money"]
    single = senses(model, SENTENCE, "bank", groups=["money", "river"])  # no pair within a sense
    assert not single.separated
    assert single.best == 1 + single.cosines[1:, 0, 1].argmin()
    assert "farthest apart at layer" in str(single)


def test_what_a_long_text_loses_is_counted(model: Model) -> None:
    texts = ["bank w1 bank " + "w2 " * 36 + "bank"]  # the model reads 38 tokens of it
    view = senses(model, texts, "bank")
    assert (len(view.occurrences), view.lost) == (2, 1)
    assert "1 occurrences stand behind" in str(view)
    partly = "riverbanks w1 riverbanks " + "w2 " * 30 + "riverbanks"  # of whose last one a piece is read
    assert senses(model, partly, "riverbanks").lost == 1


@pytest.mark.parametrize("groups", [None, ["a", "b"], ["a", "b", "a"]])
def test_it_can_be_saved(model: Model, tmp_path: Path, groups: list[str] | None) -> None:
    view = senses(model, ["bank w1 bank", "w2 bank"], "bank", groups=groups)
    for suffix in (".png", ".html", ".json"):
        view.save(tmp_path / f"view{suffix}")
    held = json.dumps(view.as_dict(), allow_nan=False)
    assert json.loads(held)["best_layer"] == view.best
    assert len(view.panels()) == (5 if view.separated else 4)


def test_senses_that_a_real_model_tells_apart(minilm: Path) -> None:
    river = ["The river burst its bank.", "Willows grow on the bank of the stream.", "He swam to the far bank."]
    money = ["She has an account at the bank.", "The bank raised interest rates.", "The bank gave him a loan."]
    view = senses(cl.load(minilm), river + money, "bank", groups=["river"] * 3 + ["money"] * 3)
    assert view.layers["separation"][0] < 0.02 < view.layers["separation"][view.best]
    assert view.agreement == 1
    assert (view.random[1:] < view.layers["between senses"][1:]).all()


def test_the_sentences_that_are_shipped_are_told_apart_by_a_real_model(minilm: Path) -> None:
    with (Path(__file__).parents[2] / "docs" / "data" / "bank.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    named = [row["sense"] for row in rows]
    assert len(rows) == 20 and named.count("river") == named.count("money") == 10
    view = senses(cl.load(minilm), [row["text"] for row in rows], "bank", groups=named)
    assert len(view.occurrences) == 20 and view.agreement == 1
    assert view.sure is not None
    assert (view.sure.low[1:] > 0).all() and 0 not in view.sure.alike, "by context, and not before it"
    assert view.sure.low[0] < 0 < view.sure.high[0]


def test_the_legend_of_a_map_is_beside_it_and_names_are_within(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    random = np.random.default_rng(0)
    names, groups = [f"{at} some word" for at in range(20)], [f"sense {at % 10}" for at in range(20)]
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes: Any = figure.add_subplot()
    draw_scatter(axes, Scatter("map", "x", "y", random.normal(size=(20, 2)), names, groups))
    figure.savefig(tmp_path / "map.png")
    inside, legend = axes.get_window_extent(), axes.get_legend().get_window_extent()
    assert not inside.overlaps(legend)
    assert all(inside.x0 <= box.x0 and box.x1 <= legend.x0 for box in (name.get_window_extent() for name in axes.texts))
    shapes = {(tuple(part.get_facecolor()[0]), len(part.get_paths()[0].vertices)) for part in axes.collections}
    assert len(shapes) == 10, "as many kinds of dots as senses"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(word="w9"), "'w9' is 0 times in the 2 texts; give texts that have it 2 to 2000 times"),
        (dict(texts=["bank " * 30] * 67), "'bank' is 2010 times in the 67 texts"),
        (dict(word="river"), "'river' is 1 times"),
        (dict(word="..."), r"'...' is 0 times in the 2 texts"),
        (dict(word=" \u200b"), "of which the tokenizer reads nothing; give a word to look for"),
        (dict(word="\ufffd"), "of which the tokenizer reads nothing"),  # which BERT's clean-up takes out
        (dict(texts=[]), "no texts to look for the word in"),
        (dict(texts=["bank", 3]), r"texts\[1\] is 3"),
        (dict(texts=["w1 " * 50 + "bank bank"]), "2 of them behind what the model reads"),
        (dict(groups=["a"]), "groups is 1 names; give one name for each of the 2 texts, or for each of the 3 times"),
        (dict(groups="ab"), "groups is one text"),
        (dict(groups=["a", "a"]), "the same sense, 'a'"),
        (dict(neighbours=0), "neighbours is 0"),
    ],
)
def test_what_cannot_be_used_is_said(model: Model, given: dict[str, Any], message: str) -> None:
    how = {"texts": ["bank w1 bank", "w2 bank river"], "word": "bank", **given}
    with pytest.raises(InputError, match=message):
        senses(model, **how)
