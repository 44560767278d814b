"""What one does with a loaded model: predict, evaluate, embed, fill masks; in order, and each mistake one sentence."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import clozeline as cl
from clozeline.batch import Packed
from clozeline.data.readers import Example
from clozeline.errors import InputError
from helpers import PLAIN, VOCABULARY, as_trained, reviews, write_csv

TEXTS = [text for text, _ in reviews(60, longest=55)]
LONG = " ".join(PLAIN * 3)  # 150 tokens; the tiny model reads 64
LABELS = ("negative", "neutral", "positive")


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier whose random weights are so large that its answers differ from text to text."""
    return saved(tiny, cl.TextClassification(LABELS), tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def masked(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> cl.Model:
    return cl.load(saved(tiny, cl.MaskedLM(), tmp_path_factory.mktemp("masked")))


def saved(tiny: Path, task: Any, folder: Path) -> Path:
    model = cl.load(tiny, task)
    random = torch.Generator().manual_seed(0)
    for parameter in model.network.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=random)
    return as_trained(model._bundle, folder)


@pytest.fixture
def model(folder: Path) -> cl.Model:
    return cl.load(folder)


def states(model: cl.Model, text: str) -> list[Tensor]:
    """Every layer's states of one text by itself."""
    (encoded,) = model.tokenizer.encode([text])
    with torch.no_grad():
        return list(model.network.encoder.states(Packed.of([encoded.sequences[0].ids])))


def close(found: Any, expected: Any) -> None:
    """fp32 through two layers, batched otherwise: some tens of roundings of 6e-8 on values below 10."""
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=1e-5)


# -- predict


def test_predictions_are_in_the_order_of_the_texts(model: cl.Model) -> None:
    together = model.predict(TEXTS)
    assert len({prediction.label for prediction in together}) > 1
    for text, found in zip(TEXTS, together, strict=True):
        (alone,) = model.predict([text])
        assert found.label == alone.label
        close(list(found.scores.values()), list(alone.scores.values()))


def test_a_prediction_is_the_softmax_of_the_logits_by_label_name(model: cl.Model) -> None:
    (found,) = model.predict("w1 w2 good")
    head = model.network.head
    assert head is not None
    (encoded,) = model.tokenizer.encode(["w1 w2 good"])
    batch = Packed.of([encoded.sequences[0].ids])
    with torch.no_grad():
        scores = torch.softmax(head(model.network.encoder(batch), batch.layout), -1)[0].tolist()
    assert list(found.scores) == list(LABELS)
    close(list(found.scores.values()), scores)
    assert found.score == max(found.scores.values()) == found.scores[found.label]
    assert (found.tokens, found.truncated) == (3, 0)


def test_one_text_may_be_given_as_it_is_and_many_as_an_iterator(model: cl.Model) -> None:
    assert model.predict("w1 good") == model.predict(["w1 good"]) == model.predict(iter(["w1 good"]))
    assert model.predict([]) == []


def test_pairs_are_read_as_second_texts(model: cl.Model) -> None:
    (pair,) = model.predict(["w1 w2"], ["w3"])
    (plain,) = model.predict(["w1 w2"])
    assert pair.tokens == plain.tokens + 1
    assert pair.scores != plain.scores
    others = [text for text, _ in reviews(60, seed=5, longest=5)]
    together = model.predict(TEXTS, others)
    close(
        [list(found.scores.values()) for found in together[7:9]],
        [list(model.predict([TEXTS[at]], [others[at]])[0].scores.values()) for at in (7, 8)],
    )


@pytest.mark.parametrize("pairs", [["w3"], ["w3", "w4", "w5"], []], ids=len)
def test_texts_and_pairs_of_different_number_are_refused(model: cl.Model, pairs: list[str]) -> None:
    with pytest.raises(InputError, match="2 texts"):
        model.predict(["w1", "w2"], pairs)


def test_what_is_not_text_is_refused_with_its_place(model: cl.Model) -> None:
    texts: list[Any] = ["w1", None, "w2"]
    with pytest.raises(InputError, match=r"texts\[1\] is None"):
        model.predict(texts)


@pytest.mark.parametrize(("long", "lost"), [("truncate", 88), ("head_tail", 88), ("window", 0)])
def test_a_prediction_says_how_many_tokens_the_model_did_not_see(folder: Path, long: Any, lost: int) -> None:
    found = cl.load(folder, cl.TextClassification(long=long)).predict([LONG, "w1"])
    assert [(prediction.tokens, prediction.truncated) for prediction in found] == [(150, lost), (1, 0)]


def test_a_long_text_is_an_error_where_that_is_the_policy(folder: Path) -> None:
    with pytest.raises(InputError, match="has 150 tokens, but there is room for 62"):
        cl.load(folder, cl.TextClassification(long="error")).predict([LONG])


def test_a_stream_is_read_no_further_ahead_than_its_window(model: cl.Model) -> None:
    read: list[int] = []

    def source() -> Iterator[Example]:
        for at, text in enumerate(TEXTS):
            read.append(at)
            yield Example(text, None, None, "")

    stream = model.predict_stream(source(), window=4)
    first = [next(stream) for _ in range(5)]
    assert len(read) == 8
    assert [found.label for found in first] == [found.label for found in model.predict(TEXTS[:5])]


def test_bf16_predicts_almost_the_same_and_the_network_stays_fp32(folder: Path, model: cl.Model) -> None:
    fast = cl.load(folder, precision="bf16")
    found, exact = ([list(p.scores.values()) for p in each.predict(TEXTS)] for each in (fast, model))
    assert found != exact
    # a bfloat16 has 8 bits: an error of 0.4 % in each of some tens of operations
    np.testing.assert_allclose(found, exact, rtol=0, atol=0.1)
    assert {parameter.dtype for parameter in fast.network.parameters()} == {torch.float32}


# -- evaluate


def test_evaluation_agrees_with_prediction(model: cl.Model, tmp_path: Path) -> None:
    rows = reviews(40, seed=2)
    report = model.evaluate(write_csv(tmp_path / "test.csv", rows))
    right = [found.label == label for found, (_, label) in zip(model.predict([t for t, _ in rows]), rows, strict=True)]
    assert report.examples == 40
    assert report.accuracy.value == pytest.approx(np.mean(right))
    assert report.confusion.sum(1).tolist() == [20, 0, 20]


def test_evaluation_counts_what_the_policy_cost(model: cl.Model, tmp_path: Path) -> None:
    report = model.evaluate(write_csv(tmp_path / "test.csv", [*reviews(4), (LONG, "positive")]))
    assert (report.truncated_texts, report.truncated_tokens) == (1, 88)


# -- what a model cannot do


ASKED: dict[str, Callable[[cl.Model, Path], object]] = {
    "predict": lambda model, data: model.predict("w1"),
    "evaluate": lambda model, data: model.evaluate(data),
    "fit": lambda model, data: model.fit(data, out=data.parent / "out"),
}


@pytest.mark.parametrize("verb", ASKED)
def test_a_bare_encoder_refuses_with_advice(tiny: Path, tmp_path: Path, verb: str) -> None:
    data = write_csv(tmp_path / "data.csv", reviews(4))
    with pytest.raises(InputError, match=rf"a bare encoder and cannot {verb}: it has no head trained for a task"):
        ASKED[verb](cl.load(tiny), data)


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_an_untrained_classifier_refuses_to_answer(tiny: Path, tmp_path: Path, verb: str) -> None:
    data = write_csv(tmp_path / "data.csv", reviews(4))
    with pytest.raises(
        InputError, match="no trained head for text-classification yet, so its answers would be random; fit it first"
    ):
        ASKED[verb](cl.load(tiny, cl.TextClassification(LABELS)), data)


def test_a_masked_language_model_refuses_to_classify(masked: cl.Model) -> None:
    with pytest.raises(InputError, match="a MaskedLM model and cannot predict"):
        masked.predict("w1")


def test_an_unknown_device_and_precision_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="no device 'gpu'"):
        cl.load(folder, device="gpu")
    given: Any = "bf61"
    with pytest.raises(InputError, match="did you mean 'bf16'"):
        cl.load(folder, precision=given)


# -- embed


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda rows: rows.mean(0),
    "cls": lambda rows: rows[0],
    "max": lambda rows: rows.max(0).values,
}


@pytest.mark.parametrize("pool", POOLS)
def test_vectors_are_the_pooled_states_in_the_order_of_the_texts(model: cl.Model, pool: str) -> None:
    found = model.embed(TEXTS, pool=pool)
    assert isinstance(found, np.ndarray)
    assert found.shape == (60, 32)
    assert found.dtype == np.float32
    close(found, torch.stack([POOLS[pool](states(model, text)[-1]) for text in TEXTS]))


@pytest.mark.parametrize("pool", POOLS)
def test_all_layers_come_before_the_width(model: cl.Model, pool: str) -> None:
    found = model.embed(TEXTS[:5], pool=pool, layers="all")
    expected = [torch.stack([POOLS[pool](state) for state in states(model, text)]) for text in TEXTS[:5]]
    assert np.shape(found) == (5, 3, 32)
    close(found, torch.stack(expected))


def test_the_pooler_is_the_first_token_through_its_dense_layer(tiny: Path) -> None:
    model = cl.load(tiny)
    dense = model.network.head.dense  # type: ignore[union-attr]
    assert isinstance(dense, torch.nn.Linear)
    with torch.no_grad():
        expected = torch.stack([torch.tanh(dense(states(model, text)[-1][0])) for text in TEXTS[:5]])
    close(model.embed(TEXTS[:5], pool="pooler"), expected)


def test_token_vectors_have_each_text_s_length_special_tokens_included(model: cl.Model) -> None:
    found = model.embed(["w1 w2 w3", "w1"], pool="tokens")
    assert isinstance(found, list)
    assert [rows.shape for rows in found] == [(5, 32), (3, 32)]
    close(found[0], states(model, "w1 w2 w3")[-1])
    every = model.embed(["w1 w2 w3", "w1"], pool="tokens", layers="all")
    assert [rows.shape for rows in every] == [(5, 3, 32), (3, 3, 32)]
    close(every[1], torch.stack(states(model, "w1"), 1))


def test_normalised_vectors_have_length_one(model: cl.Model) -> None:
    plain = np.asarray(model.embed(TEXTS[:5]))
    close(model.embed(TEXTS[:5], normalize=True), plain / np.linalg.norm(plain, axis=1, keepdims=True))
    for rows in model.embed(TEXTS[:5], pool="tokens", normalize=True):
        close(np.linalg.norm(rows, axis=-1), np.ones(len(rows)))


def test_one_text_may_be_embedded_as_it_is_and_an_empty_one_too(model: cl.Model) -> None:
    close(model.embed("w1"), model.embed(["w1"]))
    close(model.embed("")[0], states(model, "")[-1].mean(0))


def test_embedding_no_texts_is_refused(model: cl.Model) -> None:
    with pytest.raises(InputError, match="no texts to embed"):
        model.embed([])


def test_a_text_in_windows_is_the_mean_of_its_windows(model: cl.Model) -> None:
    (encoded,) = model.tokenizer.encode([LONG], long="window")
    with torch.no_grad():
        windows = [model.network.encoder(Packed.of([part.ids])).mean(0) for part in encoded.sequences]
    assert len(windows) == 3
    close(model.embed(["w1", LONG], long="window")[1], torch.stack(windows).mean(0))
    with pytest.raises(InputError, match="cannot read a text in windows"):
        model.embed(["w1", LONG], long="window", pool="tokens")


def test_embedding_warns_of_what_it_cut(model: cl.Model, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "clozeline"):
        model.embed(["w1", LONG])
    assert "1 of 2 texts lose 88 tokens (long='truncate')" in caplog.text


def test_unknown_pools_and_layers_are_refused(model: cl.Model, tiny: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'mean'"):
        model.embed("w1", pool="maen")
    with pytest.raises(InputError, match="layers is 'first'"):
        model.embed("w1", layers="first")


def test_a_model_without_a_pooler_says_so(masked: cl.Model) -> None:
    with pytest.raises(InputError, match="pool='pooler' needs a bare encoder or a classifier with its pooler"):
        masked.embed("w1", pool="pooler")


# -- fill_mask


def test_masks_are_filled_by_probability(masked: cl.Model) -> None:
    text = "w1 [MASK] w2 [MASK]"
    first, second = masked.fill_mask(text, top=5)
    (encoded,) = masked.tokenizer.encode([text])
    head = masked.network.head
    assert head is not None
    with torch.no_grad():
        logits = head(masked.network.encoder(Packed.of([encoded.sequences[0].ids])), torch.tensor([2, 4]))
    scores, ids = torch.softmax(logits, -1).sort(descending=True)
    for found, row, order in zip((first, second), scores, ids, strict=True):
        assert [option.token for option in found] == [VOCABULARY[at] for at in order[:5]]
        close([option.score for option in found], row[:5])
    assert len({option.token for option in first}) == 5


def test_a_filled_text_has_the_word_in_place_of_its_mask(masked: cl.Model) -> None:
    (found,) = masked.fill_mask("w1 [MASK] w2", top=len(VOCABULARY))
    texts = {option.token: option.text for option in found}
    assert texts["w7"] == "w1 w7 w2"
    assert sum(option.score for option in found) == pytest.approx(1, abs=1e-5)
    assert len(masked.fill_mask("[MASK]", top=1000)[0]) == len(VOCABULARY)


def test_a_text_without_a_mask_or_too_long_is_refused(masked: cl.Model) -> None:
    with pytest.raises(InputError, match=r"has no \[MASK\]"):
        masked.fill_mask("w1 w2")
    with pytest.raises(InputError, match="151 tokens"):
        masked.fill_mask(LONG + " [MASK]")


def test_a_model_without_a_trained_masked_head_is_refused(tiny: Path, model: cl.Model) -> None:
    for other in (model, cl.load(tiny), cl.load(tiny, cl.MaskedLM())):
        with pytest.raises(InputError, match="no trained masked-LM head"):
            other.fill_mask("w1 [MASK]")


def log_probabilities(model: cl.Model, tokens: str, place: int) -> torch.Tensor:
    """Of every token at a place of a text that is written as its tokens."""
    ids = np.array([model.tokenizer.id(token) for token in tokens.split()])
    head = model.network.head
    assert head is not None
    with torch.no_grad():
        return torch.log_softmax(head(model.network.encoder(Packed.of([ids])), torch.tensor([place])), -1)[0]


def test_candidates_are_compared_and_those_of_several_pieces_are_filled_from_left_to_right(masked: cl.Model) -> None:
    (found,) = masked.fill_mask("w1 [MASK] w2", candidates=["w7", "w8 w9", "w3"])
    alone = log_probabilities(masked, "[CLS] w1 [MASK] w2 [SEP]", 2)
    first = log_probabilities(masked, "[CLS] w1 [MASK] [MASK] w2 [SEP]", 2)
    second = log_probabilities(masked, "[CLS] w1 w8 [MASK] w2 [SEP]", 3)
    index = VOCABULARY.index
    expected = {"w7": alone[index("w7")], "w3": alone[index("w3")], "w8 w9": first[index("w8")] + second[index("w9")]}
    for option in found:
        assert option.log_probability == pytest.approx(float(expected[option.token]), abs=1e-5)
        assert option.text == f"w1 {option.token} w2"
    assert sum(option.score for option in found) == pytest.approx(1)
    assert [option.score for option in found] == sorted((option.score for option in found), reverse=True)
    ratio = np.exp(found[0].log_probability - found[1].log_probability)
    assert found[0].score / found[1].score == pytest.approx(ratio, rel=1e-4)


def test_each_of_several_masks_is_filled_while_the_others_stay(masked: cl.Model) -> None:
    first, second = masked.fill_mask("[MASK] w1 [MASK]", candidates=["w5", "w6"])
    expected = log_probabilities(masked, "[CLS] [MASK] w1 [MASK] [SEP]", 3)
    assert second[0].log_probability == pytest.approx(float(expected[VOCABULARY.index(second[0].token)]), abs=1e-5)
    assert first[0].text.startswith(first[0].token)


def test_pseudo_log_likelihood_is_the_sum_over_masked_tokens(masked: cl.Model) -> None:
    texts = ["w4 w5 w6", "w9"]
    found = masked.pseudo_log_likelihood(texts)
    masks = ["[CLS] [MASK] w5 w6 [SEP]", "[CLS] w4 [MASK] w6 [SEP]", "[CLS] w4 w5 [MASK] [SEP]"]
    parts = [log_probabilities(masked, text, at)[VOCABULARY.index(f"w{at + 3}")] for at, text in enumerate(masks, 1)]
    assert found[0] == pytest.approx(float(sum(parts)), abs=1e-4)
    assert found == [masked.pseudo_log_likelihood(text)[0] for text in texts]


def test_candidates_that_are_none_are_refused(masked: cl.Model) -> None:
    for candidates, message in ((["w1", " "], "has no tokens"), ([], "no candidates"), ("w1", "a list of words")):
        with pytest.raises(InputError, match=message):
            masked.fill_mask("w1 [MASK]", candidates=candidates)
    with pytest.raises(InputError, match="does not fit"):
        masked.fill_mask("w1 [MASK]", candidates=[" ".join(["w1"] * 64)])
    with pytest.raises(InputError, match="is empty"):
        masked.pseudo_log_likelihood("")


# -- the task's own rules


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labels": ["a", "b", "a"]}, "'a' is given more than once"),
        ({"labels": ["a"]}, "one label only, 'a'"),
        ({"labels": ["good", "bad"], "class_weights": {"god": 2.0}}, "did you mean 'good'"),
        ({"labels": ["a", "b"], "class_weights": "balance"}, "give 'balanced' or a weight"),
    ],
    ids=str,
)
def test_labels_and_weights_that_cannot_be_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cl.TextClassification(**given)


def test_the_policy_for_long_texts_is_saved_with_the_model(trained: Path, tmp_path: Path) -> None:
    model = cl.load(trained, long="window")
    model.save(tmp_path / "saved")
    task = cl.load(tmp_path / "saved").task
    assert isinstance(task, cl.TextClassification)
    assert task.long == "window"


def test_some_pairs_that_are_none_are_refused(trained: Path) -> None:
    with pytest.raises(InputError, match="Some pairs are None"):
        cl.load(trained).predict(["a", "b"], pairs=[None, "c"])


@pytest.mark.parametrize(("name", "value"), [("epochs", 1.5), ("batch_size", "3"), ("learning_rate", "1e-5")])
def test_a_setting_of_another_kind_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{name} is"):
        cl.Settings().replace(**{name: value})


def test_a_model_that_has_predicted_can_be_copied_and_follows_its_network(trained: Path) -> None:
    model = cl.load(trained)
    first = model.embed("w1 w2 good")
    twin = copy.deepcopy(model)
    np.testing.assert_array_equal(twin.embed("w1 w2 good"), first)
    network = model.network
    with torch.no_grad():
        dict(network.named_parameters())["encoder.layers.0.ffn.up.weight"].mul_(2)
    assert not np.allclose(model.embed("w1 w2 good"), first)


def test_a_pooler_that_was_never_trained_is_not_used(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no trained pooler"):
        loaded = cl.load(tiny, cl.TextClassification(["a", "b"]))
        loaded._bundle.fresh.append("head.pooler.dense.weight")
        loaded.embed("w1", pool="pooler")


def test_a_model_saved_in_bf16_is_half_the_size_and_loads_as_its_rounding(trained: Path, tmp_path: Path) -> None:
    model = cl.load(trained)
    model.save(tmp_path / "half", precision="bf16")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (trained, tmp_path / "half")]
    assert sizes[1] < 0.6 * sizes[0]
    loaded = cl.load(tmp_path / "half")
    for one, other in zip(model.network.parameters(), loaded.network.parameters(), strict=True):
        assert other.dtype == torch.float32 and torch.equal(one.bfloat16().float(), other)
    with pytest.raises(InputError, match="precision is 'int4'"):
        model.save(tmp_path / "other", precision="int4")  # type: ignore[arg-type]
