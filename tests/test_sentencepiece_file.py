"""SentencePiece files: both kinds are read, and what is none is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clozeline import sentencepiece_file
from clozeline.errors import InputError
from clozeline.tokenizer import Tokenizer
from helpers import write_sentencepiece

SPECIAL = [("<pad>", 0.0, 3), ("<unk>", 0.0, 2), ("[CLS]", 0.0, 3), ("[SEP]", 0.0, 3), ("[MASK]", 0.0, 4)]
TEXTS = ["\u2581", "l", "o", "w", "er", "lo", "low", "\u2581low", "e", "r"]
WORDS = [(text, -8.0 / len(text), 1) for text in TEXTS]
PIECES = [*SPECIAL, *WORDS]


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write_sentencepiece(tmp_path / "spm.model", PIECES, model=2, charsmap=b"\x00rules")
    found = sentencepiece_file.read(path)
    assert [(piece.text, piece.kind) for piece in found.pieces] == [(text, kind) for text, _, kind in PIECES]
    assert [piece.score for piece in found.pieces] == pytest.approx([score for _, score, _ in PIECES])
    assert (found.model, found.unk_id, found.charsmap) == (sentencepiece_file.BPE, 1, b"\x00rules")


@pytest.mark.parametrize("model", [sentencepiece_file.UNIGRAM, sentencepiece_file.BPE])
def test_both_kinds_split_text(model: int, tmp_path: Path) -> None:
    write_sentencepiece(tmp_path / "spiece.model", PIECES, model)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "AlbertTokenizer"}))
    tokenizer = Tokenizer.load(tmp_path)
    [encoded] = tokenizer.encode(["Lower  low?"])
    tokens = [tokenizer.token(at) for at in encoded.sequences[0].ids]
    assert tokens == ["[CLS]", "\u2581low", "er", "\u2581low", "<unk>", "[SEP]"]


@pytest.mark.parametrize("kind", [3, 4])
def test_models_of_words_and_characters_are_refused(kind: int, tmp_path: Path) -> None:
    path = write_sentencepiece(tmp_path / "spm.model", PIECES, model=kind)
    with pytest.raises(InputError, match="unigram or BPE"):
        sentencepiece_file.read(path)


def test_every_cut_of_a_file_is_refused_or_read_in_part_but_never_fails_otherwise(tmp_path: Path) -> None:
    path = write_sentencepiece(tmp_path / "spm.model", PIECES)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            found = sentencepiece_file.read(path)
        except InputError:
            continue
        assert len(found.pieces) <= len(PIECES)
