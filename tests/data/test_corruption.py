"""Masks: how many, which tokens, and what the model sees in their place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from clozeline.data.corruption import Corruption, Masking, word_begins
from clozeline.data.shuffle import mixed, permuted, uniform
from clozeline.errors import InputError
from clozeline.tokenizer import Tokenizer

Batch = tuple[np.ndarray, np.ndarray, list[int], np.ndarray]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A WordPiece vocabulary of 100 words that begin, w0 to w99, and 50 pieces that go on."""
    folder = tmp_path_factory.mktemp("words")
    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *(f"w{n}" for n in range(100)),
        *(f"##p{n}" for n in range(50)),
    ]
    (folder / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    return Tokenizer.load(folder)


def batch(lengths: Sequence[int], seed: int = 0) -> Batch:
    """Sequences of random words and pieces between [CLS] and [SEP]; the lengths are with these."""
    random = np.random.default_rng(seed)
    parts = [[2, *random.integers(5, 155, length - 2), 3] for length in lengths]
    content = [[False, *[True] * (length - 2), False] for length in lengths]
    keys = mixed(seed, np.arange(len(lengths)))
    return np.concatenate(parts).astype(np.int32), np.concatenate(content), list(lengths), keys


def test_over_a_large_sample_15_percent_are_chosen_and_80_10_10_become_of_them(words: Tokenizer) -> None:
    ids, content, lengths, keys = batch([102] * 4000)
    seen, chosen = Corruption(Masking(), words)(ids, content, lengths, keys)
    assert len(chosen) / content.sum() == pytest.approx(0.15, abs=1e-9)
    masked = seen[chosen] == 4
    kept = seen[chosen] == ids[chosen]
    other = ~masked & ~kept
    assert masked.mean() == pytest.approx(0.8, abs=0.008)
    assert kept.mean() == pytest.approx(0.1, abs=0.008)  # a random token is the same one once in 150
    assert other.mean() == pytest.approx(0.1, abs=0.008)
    assert np.bincount(seen[chosen[other]], minlength=155)[5:].min() > 0, "any word may stand there"
    untouched = np.ones(len(ids), bool)
    untouched[chosen] = False
    assert (seen[untouched] == ids[untouched]).all()
    assert content[chosen].all() and (seen[other_specials(ids)] == ids[other_specials(ids)]).all()


def other_specials(ids: np.ndarray) -> np.ndarray:
    return np.flatnonzero(ids < 5)


def test_places_are_chosen_evenly(words: Tokenizer) -> None:
    ids, content, lengths, keys = batch([52] * 20000)
    _, chosen = Corruption(Masking(), words)(ids, content, lengths, keys)
    counts = np.bincount(chosen % 52, minlength=52)[1:-1]
    assert counts.min() > 0.93 * counts.mean() and counts.max() < 1.07 * counts.mean()


def test_rates_and_splits_are_options(words: Tokenizer) -> None:
    ids, content, lengths, keys = batch([102] * 500)
    seen, chosen = Corruption(Masking(0.4, (1.0, 0.0, 0.0)), words)(ids, content, lengths, keys)
    assert len(chosen) == 0.4 * content.sum()
    assert (seen[chosen] == 4).all()


def test_the_same_key_masks_the_same_tokens_whatever_is_beside_them(words: Tokenizer) -> None:
    ids, content, lengths, keys = batch([40, 17, 90])
    corrupt = Corruption(Masking(), words)
    seen, chosen = corrupt(ids, content, lengths, keys)
    alone, own = corrupt(ids[40:57], content[40:57], [17], keys[1:2])
    assert (alone == seen[40:57]).all()
    assert (own + 40 == chosen[(chosen >= 40) & (chosen < 57)]).all()
    again, _ = corrupt(ids, content, lengths, mixed(keys, 1))
    assert (again != seen).any()


def test_what_is_masked_cannot_be_seen(words: Tokenizer) -> None:
    """The input is the same whatever stands in the masked places."""
    ids, content, lengths, keys = batch([60] * 50)
    corrupt = Corruption(Masking(0.15, (0.9, 0.1, 0.0)), words)
    seen, chosen = corrupt(ids, content, lengths, keys)
    other = ids.copy()
    other[chosen] = np.random.default_rng(1).integers(5, 155, len(chosen))
    cheated, again = corrupt(other, content, lengths, keys)
    assert (chosen == again).all() and (seen == cheated).all()


@pytest.mark.parametrize("unit", ["word", "span"])
def test_whole_words_are_masked_whole(words: Tokenizer, unit: str) -> None:
    ids, content, lengths, keys = batch([128] * 300)
    seen, chosen = Corruption(Masking(unit=unit), words)(ids, content, lengths, keys)  # type: ignore[arg-type]
    assert len(np.unique(chosen)) == len(chosen) and (np.diff(chosen) > 0).all()
    begins = (ids < 105) | ~content | np.r_[True, ~content[:-1]]
    word = np.cumsum(begins)
    mine = np.zeros(len(ids), bool)
    mine[chosen] = True
    for number in np.unique(word[chosen]):
        assert mine[word == number].all()
    assert 0.14 < len(chosen) / content.sum() <= 0.151
    assert (np.bincount(np.repeat(np.arange(300), 128)[chosen]) <= 19).all()
    if unit == "span":  # tokens of a span share their fate
        runs = np.split(chosen, 1 + np.flatnonzero(np.diff(chosen) > 1))
        together = [run for run in runs if len(run) > 2]
        alike = [
            ((seen[run] == 4).all() or (seen[run] == ids[run]).all() or (seen[run] != 4).all()) for run in together
        ]
        assert np.mean(alike) > 0.9, "but for neighbouring spans"
        assert np.mean([len(run) for run in runs]) > 2.5


def test_a_short_sequence_has_one_masked_token_and_an_empty_one_none(words: Tokenizer) -> None:
    ids, content, lengths, keys = batch([3, 2, 4])
    for unit in ("token", "word", "span"):
        _, chosen = Corruption(Masking(unit=unit), words)(ids, content, lengths, keys)
        assert len(chosen) == 2 and set(chosen.tolist()) <= {1, 6, 7}


def test_words_begin_where_their_vocabulary_says(words: Tokenizer, data: Path) -> None:
    begins = word_begins(words)
    assert begins[:105].all() and not begins[105:].any()
    roberta = Tokenizer.load(data / "tokenizers" / "roberta-base")
    pieces = roberta.pieces("uncharacteristically", after_space=True)
    found = word_begins(roberta)[pieces]
    assert found[0] and not found[1:].any() and len(pieces) > 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(rate=0.0), "mask_rate is 0.0"),
        (dict(rate=1.0), "above 0 and below 1"),
        (dict(split=(0.8, 0.1)), "three shares"),
        (dict(split=(0.8, 0.3, -0.1)), "three shares"),
        (dict(unit="words"), "did you mean 'word'"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Masking(**changes)  # type: ignore[arg-type]


def test_a_vocabulary_without_a_mask_is_refused(data: Path) -> None:
    with pytest.raises(InputError, match="no mask token"):
        Corruption(Masking(), Tokenizer.load(data / "tokenizers" / "gpt2"))


# -- random orders without a state


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 17, 1000, 65537])
def test_an_order_holds_each_place_once(count: int) -> None:
    order = permuted(np.arange(count), count, key=7)
    assert (np.sort(order) == np.arange(count)).all()
    some = permuted(np.arange(count)[::3], count, key=7)
    assert (some == order[::3]).all()
    if count > 100:
        assert (permuted(np.arange(count), count, key=8) != order).mean() > 0.9
        assert abs(np.corrcoef(np.arange(count), order)[0, 1]) < 0.1


def test_uniform_numbers_are_uniform_and_differ_by_key() -> None:
    drawn = uniform(3, np.arange(100_000))
    assert drawn.min() >= 0 and drawn.max() < 1
    assert np.histogram(drawn, 20, (0, 1))[0].min() > 4700
    assert abs(np.corrcoef(drawn, uniform(4, np.arange(100_000)))[0, 1]) < 0.02
