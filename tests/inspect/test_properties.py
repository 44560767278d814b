"""What must hold of any text in any script: weights, the words they are of, and the measures, on small random models."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import clozeline as cl
from clozeline.bundle import Bundle
from clozeline.data import tagged
from clozeline.face import Model
from clozeline.families import FAMILIES
from clozeline.inspect.attention import Read, attention
from clozeline.inspect.causal import left_only
from clozeline.inspect.tracing import record
from clozeline.model.heads import Network
from clozeline.tokenizer_training import Kind, train_tokenizer
from conformance import model_type, sizes
from hostile import HOSTILE

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

# the same examples in every run; tests/conftest.py says where hypothesis keeps its tables of characters
settings.register_profile("clozeline", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("clozeline")

KINDS: dict[str, Kind] = {"bert": "wordpiece", "modernbert": "bpe", "deberta-v2-convolution": "unigram"}
LENGTH = 256
SMALL = [text for text in HOSTILE if len(text) < 200]
PARTS = [part for text in SMALL for part in text.split(" ")] + [" ", "\u200b", "\u0301", "\u200d", "🙂", "🏳️‍🌈", "ﷺ"]
TEXTS = st.one_of(st.text(max_size=16), st.lists(st.sampled_from(PARTS), max_size=6).map("".join)).filter(str.strip)
GIVEN = st.tuples(TEXTS) | st.tuples(TEXTS, TEXTS)


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A random model whose tokenizer has learned a little of every script, though not all characters of any."""
    folder, variant = tmp_path_factory.mktemp("properties"), request.param
    (folder / "text.txt").write_text("\n".join(SMALL[::2] * 3), encoding="utf-8")
    tokenizer = train_tokenizer(
        [folder / "text.txt"], kind=KINDS[variant], size=400, max_length=LENGTH, quiet=True
    ).tokenizer
    family = FAMILIES[model_type(variant)]
    config = family.read({**sizes(variant), "max_position_embeddings": LENGTH}).replace(vocab_size=400)
    network = family.build(config)
    for parameter in network.parameters():  # weights as large as a trained model's, so that dependence would show
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    return Model(Bundle("tiny", family, network.eval(), tokenizer, None, []), "fp32", torch.device("cpu"), 0)


def read(model: Model, texts: tuple[str, ...]) -> Read:
    """As `attention`; a text that grows longer than the model reads is another example's business."""
    (whole,) = model.tokenizer.encode([texts[0]], list(texts[1:]) or None)
    hypothesis.assume(not whole.cut)
    (found,) = attention(model, *texts).reads
    return found


def weights(network: Network, model: Model, texts: list[tuple[str, ...]]) -> list[np.ndarray]:
    """(layers, heads, L, L) of each, all read at once."""
    sequences = [model.tokenizer.encode([each[0]], list(each[1:]) or None)[0].sequences[0] for each in texts]
    packed = cl.Packed.of([each.ids for each in sequences], [each.segments for each in sequences])
    with record(network.encoder) as seen, torch.inference_mode():
        network.encoder(packed)
        assert all(reading.gap(layer) < 2e-5 for reading in seen for layer in range(reading.layers))
        return [np.stack([reading.weights(layer) for layer in range(reading.layers)]) for reading in seen]


@given(texts=GIVEN)
def test_rows_are_shares_and_measures_are_within_their_bounds(model: Model, texts: tuple[str, ...]) -> None:
    found = read(model, texts)
    length = len(found.tokens)
    assert (found.weights >= 0).all()
    np.testing.assert_allclose(found.weights.sum(-1), 1, atol=1e-5)
    for name, values in found.measures.items():
        most = {"entropy": np.log(length), "distance": length - 1}.get(name, 1)
        assert (values >= 0).all() and (values <= most + 1e-5).all(), name
    if (found.sources >= 0).any():  # of tokens of a text these are different places
        apart = [values for name, values in found.measures.items() if name in ("[CLS]", "[SEP]", "self", "same word")]
        assert (np.sum(apart, 0) <= 1 + 1e-5).all()


@given(texts=GIVEN)
def test_tokens_are_of_the_words_that_they_cover(model: Model, texts: tuple[str, ...]) -> None:
    found, before = read(model, texts), 0
    assert ((found.sources < 0) == (found.words < 0)).all() and (found.offsets[found.sources < 0] == 0).all()
    for source, text in enumerate(texts):
        rows, spans = found.sources == source, tagged.words(text)
        starts, ends = found.offsets[rows].T
        assert (starts >= 0).all() and (starts <= ends).all() and (ends <= len(text)).all()
        assert (np.diff(starts) >= 0).all() and (np.diff(ends) >= 0).all()
        for word, start, end in zip(found.words[rows].tolist(), starts.tolist(), ends.tolist(), strict=True):
            under = [at for at, (low, high) in enumerate(spans) if low < end and start < high]
            behind = [at for at, (low, _) in enumerate(spans) if low >= end]
            assert word - before == [*under, *behind, max(0, len(spans) - 1)][0]
        before += max(1, len(spans))


@given(texts=GIVEN)
def test_words_read_as_much_as_their_pieces(model: Model, texts: tuple[str, ...]) -> None:
    found = read(model, texts)
    joined = found.joined()
    first = np.array(
        [at == 0 or word < 0 or word != found.words[at - 1] for at, word in enumerate(found.words.tolist())]
    )
    assert joined.words.tolist() == found.words[first].tolist()
    assert len({*joined.words.tolist()} - {-1}) == (joined.words >= 0).sum(), "a word is in one place"
    np.testing.assert_allclose(joined.weights.sum(-1), 1, atol=1e-5)
    member = (np.cumsum(first) - 1)[:, None] == np.arange(first.sum())  # (L, words)
    mass = member.T @ found.weights.astype(np.float64) @ member
    np.testing.assert_allclose(joined.weights * member.sum(0)[:, None], mass, rtol=1e-5, atol=1e-6)
    for name, source, (low, high) in zip(joined.tokens, joined.sources.tolist(), joined.offsets.tolist(), strict=True):
        assert source < 0 or name == texts[source][low:high].strip()


@given(texts=GIVEN, others=st.lists(GIVEN, min_size=1, max_size=3), at=st.integers(0, 3))
def test_neighbours_change_nothing(
    model: Model, texts: tuple[str, ...], others: list[tuple[str, ...]], at: int
) -> None:
    alone = read(model, texts).weights
    at = min(at, len(others))
    packed = weights(model._network(), model, [*others[:at], texts, *others[at:]])[at]
    np.testing.assert_allclose(packed, alone, atol=1e-5)


@given(texts=GIVEN, cut=st.integers(1, 300))
def test_from_the_left_nothing_behind_is_read(model: Model, texts: tuple[str, ...], cut: int) -> None:
    network = left_only(model.network, torch.float32, torch.device("cpu"))
    (found,) = weights(network, model, [texts])
    assert (np.triu(found, 1) == 0).all()
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    (sequence,) = model.tokenizer.encode([texts[0]], list(texts[1:]) or None)[0].sequences
    cut = min(cut, len(sequence.ids))
    with torch.inference_mode():
        whole, head = (
            network.encoder(cl.Packed.of([sequence.ids[:end]], [sequence.segments[:end]]))
            for end in (len(sequence.ids), cut)
        )
    np.testing.assert_allclose(head, whole[:cut], atol=1e-5)


@given(texts=GIVEN)
def test_nothing_is_read_outside_a_window(model: Model, texts: tuple[str, ...]) -> None:
    found = read(model, texts)
    at = np.arange(len(found.tokens))
    for layer, window in enumerate(model.config.windows or [None] * model.config.layers):
        outside = np.abs(at[:, None] - at) > (len(at) if window is None else window)
        assert (found.weights[layer][:, outside] == 0).all()
        if window is None:
            assert (found.weights[layer] > 0).any(1).all(), "and without one everything may be"
