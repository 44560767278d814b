"""What a tokenizer does step by step, and how it breaks up a corpus: offsets slice back, counts are as by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import clozeline as cl
from clozeline.errors import InputError
from clozeline.inspect.panels import Words
from clozeline.inspect.tokenization import corpus_pieces, normalised, tokenization
from clozeline.inspect.words import lettered
from clozeline.tokenizer import Tokenizer
from helpers import SPECIAL

NO_TEXT: Any = 3
TEXT = "The Riverbank, naïve 東京!"
WORDS = [*SPECIAL, "the", "river", "##bank", "##s", "bank", "naive", ",", "!", "東"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return Tokenizer.load(tmp_path, 20)


def test_every_step_of_a_text(tokenizer: Tokenizer) -> None:
    view = tokenization(tokenizer, TEXT)
    assert view.normalised == "the riverbank, naive  東  京 !"
    assert view.split == ("the", "riverbank", ",", "naive", "東", "京", "!")
    tokens = ["[CLS]", "the", "river", "##bank", ",", "naive", "東", "[UNK]", "!", "[SEP]"]
    assert [piece.token for piece in view.pieces] == tokens
    assert [piece.id for piece in view.pieces] == tokenizer.encode([TEXT])[0].sequences[0].ids.tolist()
    slices = ["", "The", "River", "bank", ",", "naïve", "東", "京", "!", ""]
    assert [piece.text for piece in view.pieces] == slices
    assert all(TEXT[piece.start : piece.end] == piece.text for piece in view.pieces)
    kinds = ["special", *["begins"] * 2, "continues", *["begins"] * 3, "unknown", "begins", "special"]
    assert [piece.kind for piece in view.pieces] == kinds
    assert view.unknown == ["京"]
    assert view.words == (("The", 1), ("Riverbank", 2), ("naïve", 1), ("東", 1), ("京", 1))
    assert view.cut == 0


def test_tokens_that_are_spelled_out_or_added_are_taken_out_first(tokenizer: Tokenizer) -> None:
    tokenizer.add_words(["BankS"])
    view = tokenization(tokenizer, "the [MASK] [UNK] Banks the")
    assert view.normalised == "the [MASK] [UNK] Banks the"
    assert view.split == ("the", "[MASK]", "[UNK]", "Banks", "the")
    kinds = [(piece.text, piece.kind) for piece in view.pieces[2:5]]
    assert kinds == [("[MASK]", "special"), ("[UNK]", "special"), ("Banks", "begins")]
    assert view.pieces[4].id == tokenizer.vocab_size - 1


def test_a_text_that_is_too_long_says_what_is_lost(tokenizer: Tokenizer) -> None:
    view = tokenization(tokenizer, "the " * 30)
    assert (len(view.pieces), view.cut, len(view.words)) == (20, 12, 30)
    assert "does not read the last 12 tokens" in str(view)


def test_of_a_model_it_is_that_of_its_tokenizer(tiny: Path) -> None:
    model = cl.load(tiny)
    assert tokenization(model, "w1 good").as_dict() == tokenization(model.tokenizer, "w1 good").as_dict()


@pytest.mark.parametrize("name", ["bert-base-cased", "roberta-base", "t5-small", "xlnet-base-cased"])
def test_real_tokenizers(data: Path, name: str) -> None:
    tokenizer = Tokenizer.load(data / "tokenizers" / name)
    text = "The Danube's  riverbank — naïve 😀 東京!"
    view = tokenization(tokenizer, text)
    encoded = tokenizer.encode([text])[0].sequences[0]
    assert [piece.id for piece in view.pieces] == encoded.ids.tolist()
    assert all(text[piece.start : piece.end] == piece.text for piece in view.pieces)
    assert "".join(view.split).lstrip("▁").lower().startswith("the")
    assert dict(view.words)["Danube"] >= 1
    assert [piece.kind for piece in view.pieces].count("special") == int((encoded.source < 0).sum())


def test_words_are_runs_of_letters_and_of_scripts_without_spaces_each_letter() -> None:
    text = "don't stop: नदी 東京 C++ x_1"
    assert [text[start:end] for start, end in lettered(text)] == [
        *("don", "t", "stop", "नदी", "東", "京", "C", "x_1"),
    ]
    assert lettered(" ,;! ") == []


def test_a_corpus(tokenizer: Tokenizer) -> None:
    texts = ["The riverbanks, the bank!", "", "京 Riverbanks the bank"] * 3
    found = corpus_pieces(tokenizer, texts)
    assert (found.texts, found.count, found.tokens) == (9, 24, 3 * (8 + 6))
    assert found.pieces == {1: 18, 3: 6}
    assert found.pieces_per_word == pytest.approx((18 + 18) / 24)
    assert found.whole == pytest.approx(15 / 24)  # the unknown one is not whole
    assert found.unknown == {"京": 3}
    assert found.unknown_share == pytest.approx(3 / 42)
    assert found.characters_per_token == pytest.approx(sum(map(len, texts)) / 42)
    assert found.broken == [("Riverbanks", 3, 3), ("riverbanks", 3, 3)] == found.costly
    assert found.vanished == 0


def test_a_corpus_is_read_whole_whatever_the_length_of_the_model(tokenizer: Tokenizer) -> None:
    assert corpus_pieces(tokenizer, iter(["the " * 100])).tokens == 100


def test_words_that_clean_up_removes_are_counted(tokenizer: Tokenizer) -> None:
    accents = "\u0301"  # an accent alone
    assert normalised(tokenizer, accents) == ""
    found = corpus_pieces(tokenizer, [f"the {accents} bank"])
    assert (found.count, found.vanished) == (2, 1)
    with pytest.raises(InputError, match="no words"):
        corpus_pieces(tokenizer, [accents])


@pytest.mark.parametrize("suffix", [".png", ".html", ".json"])
def test_both_can_be_saved(tokenizer: Tokenizer, tmp_path: Path, suffix: str) -> None:
    for name, view in {"one": tokenization(tokenizer, TEXT), "many": corpus_pieces(tokenizer, [TEXT])}.items():
        view.save(tmp_path / (name + suffix))
        assert (tmp_path / (name + suffix)).stat().st_size > 100
        json.dumps(view.as_dict(), allow_nan=False)
        assert str(view)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda tokenizer: tokenization(tokenizer, " "), "The text is empty"),
        (lambda tokenizer: tokenization(tokenizer, NO_TEXT), "must be a text"),
        (lambda tokenizer: corpus_pieces(tokenizer, []), "The texts have no words"),
        (lambda tokenizer: corpus_pieces(tokenizer, [", !"]), "The texts have no words"),
        (lambda tokenizer: corpus_pieces(tokenizer, "the bank"), "must be a list of texts"),
        (lambda tokenizer: corpus_pieces(tokenizer, ["the", NO_TEXT]), r"texts\[1\] is 3"),
    ],
)
def test_what_cannot_be_used_is_said(tokenizer: Tokenizer, call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(tokenizer)


def test_bytes_are_shown_as_text_and_kinds_have_a_key(data: Path) -> None:
    found = tokenization(Tokenizer.load(data / "tokenizers" / "roberta-base"), "na\u00efve \U0001f642")
    words = next(panel for panel in found.panels() if isinstance(panel, Words))
    assert [*words.words] == ["<s>", "na", "\u00efve", "\u2581\U0001f642", "</s>"] and {*words.key} == {
        "begins",
        "continues",
        "unknown",
    }
    assert "\u2581\U0001f642" in str(found) and "\u0120" not in str(found)
    assert found.pieces[2].token == "\u00c3\u00afve"
