"""Words added to a tokenizer and a model together: their rows, and what is saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import clozeline as cl
from clozeline.bundle import Bundle
from clozeline.families import FAMILIES
from clozeline.tokenizer import Tokenizer
from conformance import sizes

WORDS = ["tocilizumab", "w1w2"]


@pytest.fixture
def masked(tiny: Path, tmp_path: Path) -> Path:
    """A masked-LM model over the tiny vocabulary, with three rows that no token has."""
    tokenizer = Tokenizer.load(tiny, 64)
    family = FAMILIES["bert"]
    config = family.read(sizes("bert")).replace(vocab_size=tokenizer.vocab_size + 3, max_length=64)
    network = family.build(config, "masked_lm")
    torch.nn.init.normal_(network.head.bias)  # type: ignore[union-attr, arg-type]
    Bundle("tiny", family, network, tokenizer, None, []).save(tmp_path / "model")
    return tmp_path / "model"


def test_new_words_begin_as_the_mean_of_their_pieces(masked: Path) -> None:
    model = cl.load(masked)
    before = {name: value.clone() for name, value in model.network.named_parameters()}
    pieces = [model.tokenizer.encode([word])[0].sequences[0].ids[1:-1].tolist() for word in WORDS]
    ids = model.add_words(WORDS)
    assert ids == [model.tokenizer.vocab_size - 2, model.tokenizer.vocab_size - 1]
    for name in ("encoder.embedding.tokens.weight", "head.bias"):
        now = dict(model.network.named_parameters())[name]
        assert torch.equal(now[: ids[0]], before[name][: ids[0]])
        for at, parts in zip(ids, pieces, strict=True):
            assert torch.equal(now[at], before[name][parts].mean(0))
    assert model.config.vocab_size == model.tokenizer.vocab_size + 1  # rows that were free are used first
    read = model.tokenizer.encode(["w3 TOCILIZUMAB tocilizumabs w1w2"])[0].sequences[0].ids
    assert read[2] == ids[0]
    assert read[-2] == ids[1]
    assert ids[0] not in read[3:-2]  # a whole word only


def test_the_table_grows_where_no_row_is_free_and_all_is_saved(masked: Path, tmp_path: Path) -> None:
    model = cl.load(masked)
    words = [f"new{number}" for number in range(7)]
    ids = model.add_words(words)
    assert model.config.vocab_size == max(ids) + 1
    model.save(tmp_path / "saved")
    again = cl.load(tmp_path / "saved")
    assert np.array_equal(again.embed(words), model.embed(words))
    assert again.tokenizer.encode(words)[3].sequences[0].ids[1] == ids[3]
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "saved")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    text = "w1 new3 w2 new33 NEW6"
    assert tokenizer(text)["input_ids"] == again.tokenizer.encode([text])[0].sequences[0].ids.tolist()
    states = theirs.base_model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    np.testing.assert_allclose(again.embed(text, pool="tokens")[0], states.detach().numpy(), rtol=1e-5, atol=1e-5)
    assert theirs.cls.predictions.bias.shape == (max(ids) + 1,)


def test_words_that_cannot_be_added_change_nothing(masked: Path) -> None:
    model = cl.load(masked)
    size = model.tokenizer.vocab_size, model.config.vocab_size
    for words, message in (
        (["new", ""], "words.1. is ''"),
        ([" new"], "without spaces around"),
        (["new", "new"], "given twice"),
        (["w1"], "a token already"),
        (["Foo", "foo"], "the same as 'Foo'"),
        (["\u200b"], "is '' after clean-up, nothing"),
        ("new", "a list of words"),
    ):
        with pytest.raises(cl.InputError, match=message):
            model.add_words(words)
    assert model.add_words([]) == []
    assert size == (model.tokenizer.vocab_size, model.config.vocab_size)


@pytest.mark.parametrize("name", ["roberta-base", "deberta-v3"])
def test_a_word_behind_a_space_takes_the_space_in(name: str, data: Path) -> None:
    tokenizer = Tokenizer.load(data / "tokenizers" / name)
    [parts] = tokenizer.add_words(["tocilizumab"]).values()
    assert tokenizer.token(parts[0])[0] in "\u0120\u2581"
    ids = tokenizer.encode(["treated with tocilizumab today"])[0].sequences[0].ids.tolist()
    plain = tokenizer.encode(["treated with"])[0].sequences[0].ids.tolist()
    assert ids[: len(plain) - 1] == plain[:-1]
    assert ids[len(plain) - 1] == tokenizer.id("tocilizumab")
