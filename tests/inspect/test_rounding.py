"""Weights made small for a page: how exact they are, what is left out of them, and that it is said."""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import clozeline as cl
from clozeline.data.readers import examples
from clozeline.inspect.attention import AttentionView, attention
from clozeline.inspect.panels import BUDGET, Attention
from clozeline.inspect.rounding import STEPS, parts, rounded


def softmax(layers: int, heads: int, length: int, spread: float = 3) -> np.ndarray:
    scores = spread * np.random.default_rng(0).standard_normal((layers, heads, length, length), dtype=np.float32)
    np.exp(scores, out=scores)
    return scores / scores.sum(-1, keepdims=True)


@pytest.mark.parametrize(("length", "budget", "bits"), [(8, 10_000, 16), (100, 30_000, 8), (200, 30_000, 8)])
def test_what_is_shown_is_as_far_off_as_is_said(length: int, budget: int, bits: int) -> None:
    weights = softmax(2, 3, length)
    found = rounded(weights, budget)
    assert found.codes.dtype.itemsize * 8 == bits and len(found.packed) <= budget
    shown = found.weights()
    np.testing.assert_allclose(shown.sum(-1), 1, atol=2e-6)
    most, share = found.errors(weights)
    kept = weights >= found.cutoff
    assert most == np.abs(shown - weights).max() > 0
    assert share == pytest.approx((np.abs(shown - weights)[kept] / weights[kept]).max(), rel=1e-5)
    assert share <= 2.1 * (2 ** (0.5 / found.octave) - 1)  # half a code, and once more to bring rows to 1
    # below the cutoff each stands as the mean of all such of its row
    rest = np.where(kept, 0, weights).sum(-1) / np.maximum((~kept).sum(-1), 1)
    off = np.abs(np.where(kept, 0, shown).max(-1) - rest) * (~kept).sum(-1)
    assert off.max() <= share + 1e-6


def test_the_page_reads_what_is_meant() -> None:
    weights = softmax(2, 2, 40)
    panel = Attention("", ["t"] * 40, [0] * 40, [0] * 40, [0, 1], [0, 1], weights, {}, ["t"], {}, budget=6000)
    found, given = panel.as_dict(), rounded(weights, 6000)
    codes = np.frombuffer(zlib.decompress(base64.b64decode(found["weights"])), f"<u{found['bits'] // 8}")
    np.testing.assert_array_equal(codes.reshape(weights.shape), given.codes)
    assert (found["error"], found["share"]) == pytest.approx(given.errors(weights), rel=1e-5)


def test_less_room_means_less_detail_and_is_never_refused() -> None:
    weights, before = softmax(2, 2, 64), 0.0
    for budget in (60_000, 12_000, 6000, 3000, 1000, 10):
        found = rounded(weights, budget)
        assert len(found.packed) <= budget or budget == 10
        most, _ = found.errors(weights)
        assert most >= before
        before = most
        np.testing.assert_allclose(found.weights().sum(-1), 1, atol=2e-6)
    assert parts(weights, 60_000) == 1 < parts(weights, 3000) < parts(weights, 300)


def test_alike_weights_stay_alike_and_heads_without_any_stay_so() -> None:
    weights = softmax(1, 3, 50)
    weights[0, 1], weights[0, 2] = np.nan, 1 / 50
    found = rounded(weights, 4000)
    shown = found.weights()
    assert found.gone.tolist() == [[False, True, False]]
    assert not shown[0, 1].any()
    np.testing.assert_allclose(shown[0, 2], 1 / 50, rtol=1e-5)


def test_steps_go_from_fine_to_rough() -> None:
    cutoffs = [2 ** (-last / octave) for _, octave, last in STEPS]
    assert cutoffs[1:] == sorted(cutoffs[1:]) and all(last < 2**bits for bits, _, last in STEPS)


def test_512_tokens_in_12_layers_of_12_heads_are_one_page(minilm: Path, data: Path, tmp_path: Path) -> None:
    """Twelve layers are the six of MiniLM for two film reviews."""
    model = cl.load(minilm)
    texts = (each.text for each in examples(str(data / "imdb" / "test.parquet"), text="text"))
    long = (text for text in texts if len(model.tokenizer.encode([text], long="window")[0].sequences) > 1)
    one, other = (attention(model, _first_512(model, text)).reads[0] for text in islice(long, 2))
    both = replace(one, layers=tuple(range(12)), weights=np.concatenate([one.weights, other.weights]))
    assert both.weights.shape == (12, 12, 512, 512)
    (page,) = AttentionView("MiniLM", (both,)).save(tmp_path / "view.html")
    assert page.stat().st_size < 10_000_000
    found = rounded(both.weights, BUDGET)
    most, share = found.errors(both.weights)
    assert found.cutoff < 0.005 and most < 0.03 and share < 0.05
    np.testing.assert_allclose(found.weights().sum(-1), 1, atol=1e-5)


def _first_512(model: cl.Model, text: str) -> str:
    """As much of the text as the model reads at once."""
    (sequence,) = model.tokenizer.encode([text], offsets=True)[0].sequences
    assert sequence.offsets is not None
    return text[: sequence.offsets[-2, 1]]
