"""Vocabularies cut to what a corpus uses: it is read as the same pieces, published vocabularies and random ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from clozeline.errors import InputError
from clozeline.shrinking import used_ids
from clozeline.tokenizer import Tokenizer
from clozeline.tokenizer_training import train_tokenizer
from clozeline.tokenizer_trim import trim
from helpers import write_sentencepiece
from hostile import HOSTILE

PUBLISHED = ("bert-base-uncased", "bert-base-chinese", "roberta-base", "gpt2", "deberta-v3", "t5-small")


@pytest.fixture(scope="module")
def corpus(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 KB of articles."""
    path = tmp_path_factory.mktemp("corpus") / "articles.txt"
    path.write_text(
        (data / "pretrain" / "wikitext-2-valid.txt").read_text(encoding="utf-8")[:100_000], encoding="utf-8"
    )
    return path


@pytest.fixture(scope="module")
def other(data: Path) -> list[str]:
    """Text that is not of the corpus: film reviews, and what tokenizers stumble over."""
    lines = (data / "sst2" / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [line.split("\t")[0] for line in lines] + [text[:1000] for text in HOSTILE]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_corpus_is_read_as_the_same_pieces_and_nothing_else_becomes_unknown(
    name: str, data: Path, corpus: Path, other: list[str], tmp_path: Path
) -> None:
    shutil.copytree(data / "tokenizers" / name, tmp_path / "large")
    large = Tokenizer.load(tmp_path / "large", 512)
    small, before = trim(large, used_ids(large, [corpus]))
    assert small.vocab_size == len(before) < 0.9 * large.vocab_size
    assert before == sorted(before)
    assert [small.token(at) for at in range(len(before))] == [large.token(at) for at in before]
    assert small.max_length == 512
    for role in ("cls_id", "sep_id", "pad_id", "mask_id", "unk_id"):
        new, old = getattr(small, role), getattr(large, role)
        assert old is None if new is None else before[new] == old
    assert {before[at] for at in small.special_ids} == large.special_ids

    text = corpus.read_text(encoding="utf-8")
    old_of = np.array(before)
    assert np.array_equal(old_of[small.plain([text])[0]], large.plain([text])[0])
    lines = text.split("\n")
    for was, now in zip(large.encode(lines[1:], lines[:-1]), small.encode(lines[1:], lines[:-1]), strict=True):
        assert np.array_equal(old_of[now.sequences[0].ids], was.sequences[0].ids)
        assert np.array_equal(now.sequences[0].segments, was.sequences[0].segments)

    changed = 0
    for was, now in zip(large.encode(other), small.encode(other), strict=True):
        ids, new = was.sequences[0].ids, now.sequences[0].ids
        if now.cut == was.cut == 0:
            assert large.decode(ids) == small.decode(new)
            assert (ids == large.unk_id).sum() == (new == small.unk_id).sum()
        changed += len(ids) != len(new)
    assert changed > 50  # other text does have words that are pieces now


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_vocabularies_trained_here_can_be_cut(kind: str, corpus: Path, other: list[str]) -> None:
    large = train_tokenizer([corpus], kind=kind, size=3000, quiet=True).tokenizer  # type: ignore[arg-type]
    texts = other[:40]
    ids = np.unique(np.concatenate(large.plain(texts)))
    small, before = trim(large, ids)
    assert len(before) < 1500
    for was, now in zip(large.plain(texts), small.plain(texts), strict=True):
        assert np.array_equal(np.array(before)[now], was)


def test_words_that_were_added_stay_and_are_read_first(data: Path, tmp_path: Path) -> None:
    large = Tokenizer.load(data / "tokenizers" / "roberta-base")
    [added] = large.add_words(["tocilizumab"])
    small, before = trim(large, large.plain(["treated with it"])[0])
    assert before[-1] == added
    small.save(tmp_path / "small")
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    assert Tokenizer.load(tmp_path / "small").digest() == small.digest()
    assert small.plain(["treated with tocilizumab"])[0].tolist()[-1] == small.vocab_size - 1


# ---- vocabularies of all kinds, at random


def tokenizer_of(model: models.Model) -> Tokenizer:
    """A tokenizer whose words stand between spaces."""
    backend = Backend(model)
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken("[UNK]", normalized=False)])
    return Tokenizer(backend, {"unk_token": "[UNK]"})


def random_pieces(random: np.random.Generator, chars: str) -> list[str]:
    drawn = {"".join(random.choice([*chars], random.integers(2, 6))) for _ in range(40)}
    return [*chars, *sorted(drawn, key=lambda _: random.random())]


def random_model(kind: str, random: np.random.Generator) -> models.Model:
    pieces = random_pieces(random, "abcd")
    if kind == "wordpiece":
        found = ["[UNK]", *pieces, *(f"##{piece}" for piece in random_pieces(random, "abcd"))]
        return models.WordPiece({piece: at for at, piece in enumerate(found)}, unk_token="[UNK]")
    if kind == "unigram":
        # whole numbers, so that ties are many; the lowest decides what an unknown character costs
        return models.Unigram(
            [("[UNK]", 0.0), *((piece, -float(random.integers(1, 30))) for piece in pieces)], unk_id=0
        )
    ending = "</w>" if kind == "bpe with endings" else ""
    found, merges = ["[UNK]", *"abcd", *(f"{char}{ending}" for char in "abcd")], []
    for _ in range(60):  # of two tokens that may be merged a third, in more ways than one
        left = str(random.choice([token for token in found[1:] if not ending or not token.endswith(ending)]))
        right = str(random.choice(found[1:]))
        if len(left + right) < 9 and (left, right) not in merges:
            merges.append((left, right))
            found += [left + right] if left + right not in found else []
    vocabulary = {piece: at for at, piece in enumerate(dict.fromkeys(found))}
    return models.BPE(vocabulary, merges, unk_token="[UNK]", end_of_word_suffix=ending)


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "bpe", "bpe with endings"])
def test_texts_are_read_as_before_whatever_the_vocabulary(kind: str) -> None:
    random = np.random.default_rng(0)
    cut = 0
    for _ in range(40):
        large = tokenizer_of(random_model(kind, random))
        words = ["".join(random.choice([*"abcdabcdabcdx"], random.integers(1, 12))) for _ in range(150)]
        used, unused = words[:6], words[6:]
        small, before = trim(large, np.concatenate(large.plain(used)))
        cut += len(before) < large.vocab_size
        for was, now in zip(large.plain(used), small.plain(used), strict=True):
            assert [before[at] for at in now] == was.tolist()
        for was, now in zip(large.plain(unused), small.plain(unused), strict=True):
            assert (now == small.unk_id).sum() == (was == large.unk_id).sum()
    assert cut > 30


def test_what_an_unknown_character_costs_stays_the_same() -> None:
    # x is unknown: a piece "ax" for -20, or "a" and x for -1 and the lowest score less 10
    pieces = [("[UNK]", 0.0), ("a", -1.0), ("b", -1.0), ("axb", -45.0), ("bbb", -40.0)]
    large = tokenizer_of(models.Unigram(pieces, unk_id=0))
    [read] = large.plain(["axb"])
    assert [large.token(at) for at in read] == ["axb"]
    small, before = trim(large, read)
    assert [before[at] for at in small.plain(["axb"])[0]] == read.tolist()
    small, before = trim(large, large.plain(["ab"])[0])
    assert len(before) == 4  # the lowest score stays, though nothing uses it
    assert "bbb" not in small.vocabulary()


def test_a_token_stays_whose_characters_have_none_of_their_own() -> None:
    found = ["[UNK]", "a", "##a", "##b", "ab", "aab", "bb", "aa", "##c"]
    large = tokenizer_of(models.WordPiece({piece: at for at, piece in enumerate(found)}, unk_token="[UNK]"))
    small, before = trim(large, [])
    assert [found[at] for at in before] == ["[UNK]", "a", "##a", "##b", "bb", "##c"]  # no word begins with b otherwise
    assert small.plain(["aab"])[0].tolist() == [1, 2, 3]
    assert small.plain(["bb"])[0].tolist() == [4]


def test_pieces_of_a_sentencepiece_bpe_file_stay_with_all_they_may_be_made_of(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("<pad>", 0.0, 3)]
    pieces += [
        (text, -float(at), 1) for at, text in enumerate(["ab", "bc", "abc", "cd", "abcd", "▁", "a", "b", "c", "d"])
    ]
    write_sentencepiece(tmp_path / "spiece.model", pieces, model=2)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 0}))
    large = Tokenizer.load(tmp_path)
    abc = large.id("abc")
    assert abc is not None
    small, before = trim(large, [abc])
    kept = [large.token(at) for at in before]
    assert {"ab", "bc", "abc"} <= {*kept}
    assert not {"cd", "abcd"} & {*kept}
    assert [small.token(at) for at in small.plain(["abc abcd"])[0]] == ["▁", "abc", "▁", "abc", "d"]


def test_special_tokens_around_texts_get_their_new_ids_however_they_are_put_there(data: Path) -> None:
    backend = Backend.from_file(str(data / "tokenizers" / "roberta-base" / "tokenizer.json"))
    around = [("<s>", 0), ("</s>", 2), ("madeupword0000", 50_261)]
    frame = processors.TemplateProcessing("madeupword0000 <s> $A </s>", "<s> $A </s> $B </s>", around)
    backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), frame])
    small, before = trim(Tokenizer(backend, {}), [])
    last = small.vocab_size - 2  # before the mask
    assert before[last] == 50_261
    assert small.encode(["a"])[0].sequences[0].ids.tolist() == [last, 0, *small.plain(["a"])[0], 2]


def test_ids_without_a_token_and_vocabularies_of_words_are_refused() -> None:
    words = {"[UNK]": 0, "one": 1, "two": 2}
    with pytest.raises(InputError, match="type WordLevel has no pieces"):
        trim(tokenizer_of(models.WordLevel(words, unk_token="[UNK]")), [1])
    pieces = tokenizer_of(models.WordPiece(words, unk_token="[UNK]"))
    for wrong in (3, -1):
        with pytest.raises(InputError, match=f"No token has id {wrong}; the vocabulary has ids 0 to 2"):
            trim(pieces, [1, wrong])
