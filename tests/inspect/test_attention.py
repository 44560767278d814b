"""Who reads whom: sums, measures, words, what a kernel did, what is refused, and what is written."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel

import clozeline as cl
from clozeline.data import tagged
from clozeline.inspect import panels as kinds
from clozeline.inspect.attention import Read, attention
from clozeline.inspect.heads import prune
from clozeline.inspect.tracing import record, trace
from clozeline.inspect.view import View
from clozeline.inspect.words import _bytes, readable, word_of
from clozeline.tokenizer import Tokenizer
from helpers import reviews, write_csv

TEXT = "w1 w2 good w3, bad w4"


@pytest.fixture(scope="module")
def model(tiny: Path) -> cl.Model:
    return cl.load(tiny)


def read(weights: np.ndarray, words: list[int], sources: list[int]) -> Read:
    length, offsets = len(words), np.array([[2 * at, 2 * at + 1] for at in range(len(words))])
    names, texts = tuple(f"t{at}" for at in range(length)), ("a b c d e f g h", "a b c d e f g h")
    where: dict[str, Any] = dict(texts=texts, tokens=names, offsets=offsets, words=np.array(words))
    return Read(**where, sources=np.array(sources), layers=(0,), heads=(0,), weights=weights)


def test_rows_sum_to_one_and_tokens_are_the_texts(model: cl.Model) -> None:
    view = attention(model, TEXT, "dull w5")
    (found,) = view.reads
    assert found.weights.shape == (model.config.layers, model.config.heads, len(found.tokens), len(found.tokens))
    np.testing.assert_allclose(found.weights.sum(-1), 1, atol=1e-5)
    for token, source, (low, high) in zip(found.tokens, found.sources.tolist(), found.offsets.tolist(), strict=True):
        assert source < 0 or token in (found.texts[source][low:high].lower(), "[UNK]")
    assert found.tokens[0] == "[CLS]" and found.sources.tolist().count(1) == 2


def test_only_the_layers_and_heads_asked_for(model: cl.Model) -> None:
    (whole,) = attention(model, TEXT).reads
    (part,) = attention(model, TEXT, layers=[1], heads=[1, 0]).reads
    np.testing.assert_array_equal(part.weights[0], whole.weights[1][[1, 0]])
    panel = attention(model, TEXT, layers=[1], heads=[1, 0]).panels()[0].as_dict()
    assert (panel["layers"], panel["heads"]) == ([1], [1, 0])


def test_measures_of_heads_whose_habits_are_known() -> None:
    length = 6
    words, sources = [-1, 0, 0, 1, 2, -1], [-1, 0, 0, 0, 0, -1]
    alike = np.full((length, length), 1 / length)
    heads = {"self": np.eye(length), "previous": np.eye(length, k=-1), "next": np.eye(length, k=1)}
    heads |= {"[CLS]": np.eye(length)[[0] * length], "[SEP]": np.eye(length)[[5] * length]}
    for name, weights in heads.items():
        measures = read(weights[None, None], words, sources).measures
        assert measures[name].item() == 1 and measures["entropy"].item() == 0, name
    found = read(alike[None, None], words, sources).measures
    assert found["entropy"].item() == pytest.approx(np.log(length))
    assert found["same word"].item() == pytest.approx(2 / 4 / length)  # two of the four tokens have one other piece
    distances = [np.abs(np.arange(length) - at).mean() for at in range(1, 5)]
    assert found["distance"].item() == pytest.approx(np.mean(distances))
    assert "other text" not in found
    pair = read(alike[None, None], [-1, 0, -1, 1, 2, -1], [-1, 0, -1, 1, 1, -1]).measures
    assert pair["other text"].item() == pytest.approx((2 + 1 + 1) / 3 / length)
    assert pair["[SEP]"].item() == pytest.approx(2 / length)


def test_words_are_read_as_the_sum_of_their_pieces() -> None:
    random = np.random.default_rng(0)
    weights = random.random((1, 2, 6, 6))
    weights /= weights.sum(-1, keepdims=True)
    given = read(weights, [-1, 0, 0, 1, 2, -1], [-1, 0, 0, 0, 0, -1])
    found = given.joined()
    assert found.tokens == ("t0", "b c", "d", "e", "t5")
    joined = found.weights
    np.testing.assert_allclose(joined.sum(-1), 1, rtol=1e-6)
    assert found.measures["same word"].max() == 0
    assert joined[0, 1, 0, 1] == pytest.approx(weights[0, 1, 0, 1:3].sum())
    assert joined[0, 1, 1, 2] == pytest.approx(weights[0, 1, 1:3, 3].mean())


def test_heads_that_were_pruned_are_seen_to_be_gone(model: cl.Model, tmp_path: Path) -> None:
    (whole,) = attention(model, TEXT).reads
    view = attention(prune(model, {0: [1]}), TEXT)
    (found,) = view.reads
    assert np.isnan(found.weights[0, 1]).all() and not np.isnan(found.weights[0, [0, 2, 3]]).any()
    np.testing.assert_allclose(found.weights[0, [0, 2, 3]], whole.weights[0, [0, 2, 3]], atol=1e-6)
    assert "nan" not in str(view)
    for name in ("a.png", "a.html", "a.json"):
        view.save(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "spans", "words"),
    [
        ("un believable", [(0, 2), (3, 8), (8, 13)], [0, 1, 1]),
        ("don't", [(0, 3), (3, 4), (4, 5)], [0, 1, 2]),
        (" hi there", [(0, 3), (3, 9)], [0, 1]),  # a space that is a part of the piece behind it
        ("🙂!", [(0, 1), (0, 1), (1, 2)], [0, 0, 1]),  # bytes of one character
        ("你好", [(0, 1), (1, 2)], [0, 1]),
    ],
)
def test_what_is_one_word(text: str, spans: list[tuple[int, int]], words: list[int]) -> None:
    assert word_of([tagged.words(text)], np.array(spans), np.zeros(len(spans), int)).tolist() == words


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Crème brûlée", ("<s>", "Cr", "è", "me", "\u2581br", "û", "l", "ée", "</s>")),
        ("a <mask>\nb", ("<s>", "a", "<mask>", "\\n", "b", "</s>")),
        ("hi 你", ("<s>", "hi", "\u2581", "\\xe4\\xbd", "\\xa0", "</s>")),
    ],
)
def test_bytes_are_shown_as_the_text_that_they_are(data: Path, text: str, tokens: tuple[str, ...]) -> None:
    tokenizer = Tokenizer.load(data / "tokenizers" / "roberta-base")
    ((sequence,),) = (each.sequences for each in tokenizer.encode([text]))
    assert readable(tokenizer, sequence.ids) == tokens


def test_every_byte_has_a_letter() -> None:
    assert {chr(sign) for sign in range(33, 127)} < {*_bytes()} == {*ByteLevel.alphabet()}
    assert sorted(_bytes().values()) == [*range(256)]


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="varlen needs a CUDA device")


@pytest.mark.parametrize(
    ("kernel", "precision", "device"),
    [
        *((kernel, precision, "cpu") for kernel in ("auto", "blocks", "eager") for precision in ("fp32", "bf16")),
        pytest.param("varlen", "bf16", "cuda", marks=needs_cuda),
    ],
)
def test_what_was_read_explains_what_a_kernel_gave(tiny: Path, kernel: str, precision: Any, device: str) -> None:
    model = cl.load(tiny, precision=precision, device=device)
    model._network().encoder.use_kernel(kernel)
    texts = [TEXT, "w1", "w9 " * 20]
    plain = model.embed(texts)
    with trace(model) as seen:
        watched = model.embed(texts)
    np.testing.assert_array_equal(watched, plain)
    assert sorted(map(len, seen)) == sorted(
        len(each.ids) for t in texts for each in model.tokenizer.encode([t])[0].sequences
    )
    for reading in seen:
        for layer in range(reading.layers):
            np.testing.assert_allclose(reading.weights(layer).sum(-1), 1, atol=1e-5)
            assert reading.gap(layer) < (2e-6 if precision == "fp32" else 0.02)
    model.embed("w1")
    assert len(seen) == 3, "nothing is kept afterwards"


def test_a_model_that_changed_afterwards_is_found_out(tiny: Path) -> None:
    model = cl.load(tiny)
    with record(model.network.encoder.eval()) as seen, torch.no_grad():
        model.network.encoder(cl.Packed.of([np.arange(9)]))
    assert seen[0].gap(0) < 1e-6
    with torch.no_grad():
        model.network.encoder.layers[0].get_submodule("attention.qkv").get_parameter("weight").mul_(1.5)
    with pytest.raises(cl.InputError, match="changed since it read this"):
        seen[0].gap(0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_that_is_trained_on_the_way_is_not_followed(
    trained: Path, tmp_path: Path, precision: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = cl.load(trained, precision=precision)
    data = write_csv(tmp_path / "a.csv", reviews(32))
    with trace(model) as seen:
        model.predict("w1 good")
        before = seen[0].weights(1)
        model.fit(data, out=tmp_path / "run", epochs=2, learning_rate=1e-2, quiet=True)
        model.predict("w1 good")
    assert len(seen) == 1 and "not in the trace" in caplog.text
    try:
        after = seen[0].weights(1)  # of weights packed for prediction, which training leaves alone
    except cl.InputError as error:
        assert "trace it again" in str(error)  # of others
    else:
        np.testing.assert_array_equal(after, before)


def test_training_can_be_watched_too(tiny: Path) -> None:
    encoder = cl.load(tiny).network.encoder.train()
    with record(encoder) as seen:
        encoder(cl.Packed.of([np.arange(9), np.arange(4)])).sum().backward()
    assert [len(reading) for reading in seen] == [9, 4]
    assert all(parameter.grad is not None for parameter in encoder.layers.parameters())
    with pytest.raises(cl.InputError, match="layers 0 to 1"):
        seen[0].weights(2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(text=" "), "empty"),
        (dict(text="w1", pair=""), "empty"),
        (dict(text="w1", beside=""), "empty"),
        (dict(text="w1 " * 200), "has 200 tokens, .* more than the model reads at once"),
        (dict(text=["w1"]), "no text"),
        (dict(text="w1", layers=9), r"layers is \[9\]"),
        (dict(text="w1", layers=[2]), r"layers is \[2\]; the model has layers 0 to 1"),
        (dict(text="w1", heads=[0, 0]), "each to be named once"),
        (dict(text="w1", heads=[]), "heads 0 to 3"),
    ],
)
def test_mistakes_get_one_sentence(model: cl.Model, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(cl.InputError, match=says):
        attention(model, **changes)


def test_arrays_are_written_where_json_would_be_too_much(
    model: cl.Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.import_module("clozeline.inspect.attention"), "WRITTEN", 10)
    view = attention(model, TEXT, beside="w1")
    with pytest.raises(cl.InputError, match=r"give an \.npz file"):
        view.save(tmp_path / "view.json")
    view.save(tmp_path / "view.npz")
    with np.load(tmp_path / "view.npz") as found:
        np.testing.assert_array_equal(found["weights"], view.reads[0].weights)
        assert tuple(found["beside tokens"]) == view.reads[1].tokens
        np.testing.assert_array_equal(found["entropy"], view.reads[0].measures["entropy"])
    with pytest.raises(cl.InputError, match="there are no arrays of this"):
        cl.inspect.tokenization(model, "w1").save(tmp_path / "tokens.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["view.npz"]


def test_more_weights_than_are_held_are_refused(model: cl.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("clozeline.inspect.attention")
    monkeypatch.setattr(module, "MOST", 300)
    with pytest.raises(cl.InputError, match="choose fewer by layers"):
        attention(model, TEXT)
    monkeypatch.setattr(module, "MOST", 10**9)
    monkeypatch.setattr(module, "WRITTEN", 10)
    with pytest.raises(cl.InputError, match="too many for JSON"):
        attention(model, TEXT).as_dict()


def test_a_page_of_too_much_has_parts_that_lead_to_each_other(model: cl.Model, tmp_path: Path) -> None:
    view = attention(model, TEXT, beside="w1 w2")
    (whole,) = view.sheets()
    assert [panel.layers for panel in whole if isinstance(panel, kinds.Attention)] == [(0, 1), (0, 1)]
    assert view.save(tmp_path / "small.html") == [tmp_path / "small.html"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kinds, "BUDGET", 300)
        sheets, written = view.sheets(), view.save(tmp_path / "v.html")
    found = [[panel for panel in sheet if isinstance(panel, kinds.Attention)] for sheet in sheets]
    assert [[panel.layers for panel in each] for each in found] == [[(0,), (0,)], [(1,), (1,)]]
    np.testing.assert_array_equal(found[1][0].weights, view.reads[0].weights[1:])
    np.testing.assert_array_equal(found[1][0].measures["entropy"], view.reads[0].measures["entropy"][1:])
    assert [path.name for path in written] == ["v.html", "v-2.html"]
    assert all('"pages": ["v.html", "v-2.html"]' in path.read_text() for path in written)


class Hostile(View):
    """Texts that would end the element they stand in, or call out of it."""

    texts = ("</script><script>alert(1)</script>", "<!--<script>", "\u2028 & ' \"", "\u202e\u200b🙂", "$x_1$")

    @property
    def title(self) -> str:
        return self.texts[0]

    def panels(self) -> list[kinds.Panel]:
        values = np.arange(5.0)
        drawn: list[kinds.Panel] = [kinds.Table("t", ["a"], [[text] for text in self.texts])]
        drawn += [kinds.Words(self.texts[1], self.texts, values.tolist(), self.texts, diverging=True)]
        drawn += [kinds.Lines("$l$", "x", "y", {text: (values.tolist(),) * 2 for text in self.texts}, {"$m$": 2.0})]
        drawn += [kinds.Heatmap("h", "x", "y", np.full((5, 5), np.nan), self.texts, self.texts)]
        drawn += [kinds.Bars("b", "y", self.texts, ["$g$"], values[:, None], np.stack([values, values], -1)[:, None])]
        return [*drawn, kinds.Scatter("s", "x", "y", np.stack([values, values], 1), self.texts, self.texts)]

    def as_dict(self) -> dict[str, Any]:
        return {"texts": list(self.texts)}


def test_what_is_written_holds_any_text_as_data(tmp_path: Path) -> None:
    view = Hostile()
    for name in ("view.json", "view.png", "view.svg", "view.html"):
        view.save(tmp_path / name)
    assert json.loads((tmp_path / "view.json").read_text()) == view.as_dict()
    page, place = view.pages()["view.html"], '<script type="application/json" id="view">'
    data = page.split(place)[1].split("</script>")[0]
    assert not set(data) & set("<>&\u2028")
    assert json.loads(data)["panels"][0]["rows"] == [[text] for text in view.texts]
    with pytest.raises(cl.InputError, match=r"one of \.json, \.npz, \.png, \.svg, \.html"):
        view.save(tmp_path / "view.gif")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["view.html", "view.json", "view.png", "view.svg"]


def test_the_view_prints_and_is_drawn(model: cl.Model, tmp_path: Path) -> None:
    view = attention(model, TEXT, beside="w9 w8", join=True)
    assert "entropy" in str(view) and "w9 w8" in str(view)
    view.save(tmp_path / "a.svg")
    found = json.loads(json.dumps(view.as_dict()))
    np.testing.assert_allclose(found["reads"][0]["weights"], view.reads[0].weights, rtol=1e-5)
