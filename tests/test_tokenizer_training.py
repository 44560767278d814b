"""Training a tokenizer: the same bytes from every process, samples of a known size, unigram pieces against brute force."""

from __future__ import annotations

import itertools
import logging
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clozeline import tokenizer_training
from clozeline.data.corpus import Document
from clozeline.data.sampling import PIECE, Sample, cut
from clozeline.errors import InputError
from clozeline.tokenizer import Tokenizer
from clozeline.tokenizer_training import Kind, Trained, train_tokenizer
from clozeline.unigram_training import _Lattice, learn_pieces
from hostile import HOSTILE

KINDS: tuple[Kind, ...] = ("wordpiece", "bpe", "unigram")
TEXT = "\n".join(
    f"the {a} {b} saw a {c} in the old house"
    for a, b, c in itertools.permutations(["small", "smaller", "brown", "cat", "dog", "garden", "gardener", "river"], 3)
)


@pytest.fixture(scope="module")
def prose(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.1 MB of articles, without the unknown words that are spelled as RoBERTa's special token."""
    text = (data / "pretrain" / "wikitext-2-valid.txt").read_text(encoding="utf-8")
    path = tmp_path_factory.mktemp("prose") / "prose.txt"
    path.write_text(text.replace("<unk>", "thing"), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, prose: Path) -> Trained:
    return train_tokenizer([prose], kind=request.param, size=4000, split="line", max_length=128, quiet=True)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def ids(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [one.sequences[0].ids.tolist() for one in tokenizer.encode(texts)]


def test_what_is_trained_is_as_asked(trained: Trained, prose: Path) -> None:
    tokenizer, report = trained.tokenizer, trained.report
    assert tokenizer.vocab_size == 4000
    assert tokenizer.max_length == 128
    assert sorted(tokenizer.special_ids) == [0, 1, 2, 3, 4]
    assert (tokenizer.pad_id, tokenizer.mask_id) in ((0, 4), (1, 4))
    assert len(set(tokenizer.vocabulary())) == 4000
    assert report.held
    assert 1.2 < report.pieces_per_word < 1.7
    assert report.unknown_share < 1e-3
    assert trained.counts.documents > 2000
    assert 0.97 * trained.bytes_in_all < trained.bytes_read < trained.bytes_in_all <= prose.stat().st_size


def test_special_tokens_stand_around_texts_and_pairs(trained: Trained) -> None:
    tokenizer = trained.tokenizer
    [single], [pair] = tokenizer.encode(["the film"])[0].sequences, tokenizer.encode(["the"], ["film"])[0].sequences
    cls, sep = tokenizer.cls_id, tokenizer.sep_id
    roberta = tokenizer.id("<s>") is not None
    assert (tokenizer.token(single.ids[0]), tokenizer.token(single.ids[-1])) == (
        ("<s>", "</s>") if roberta else ("[CLS]", "[SEP]")
    )
    assert (single.ids[0], single.ids[-1], pair.ids[0], pair.ids[-1]) == (cls, sep, cls, sep)
    assert (pair.ids == sep).sum() == (3 if roberta else 2)
    assert pair.segments.max() == (0 if roberta else 1)
    mask = tokenizer.encode(["the " + tokenizer.token(tokenizer.mask_id or 0)])[0].sequences[0]
    assert tokenizer.mask_id in mask.ids


def test_saving_and_loading_changes_nothing(trained: Trained, prose: Path, tmp_path: Path) -> None:
    trained.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    texts = [*HOSTILE, *prose.read_text(encoding="utf-8").splitlines()[:300]]
    assert ids(again, texts) == ids(trained.tokenizer, texts)
    assert (again.max_length, again.special_ids, again.mask_id) == (128, trained.tokenizer.special_ids, 4)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_bytes_lose_no_text(prose: Path) -> None:
    tokenizer = train_tokenizer([prose], kind="bpe", size=600, max_length=100_000, quiet=True).tokenizer
    for text in HOSTILE:
        if len(text) < 10_000 and "<s>" not in text:
            assert tokenizer.decode(ids(tokenizer, [text])[0]) == text


PROGRAM = """
import hashlib, sys, resource
from pathlib import Path
from clozeline.tokenizer_training import MEMORY, train_tokenizer
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
folder, before = Path(sys.argv[1]), peak()
for kind in ("wordpiece", "bpe", "unigram"):
    done = train_tokenizer(sys.argv[2:], kind=kind, size=3000, split="line", quiet=True)
    rest, factor, power = MEMORY[kind]
    print(peak() - before < rest + factor * (done.bytes_read / 1e6) ** power)
    done.save(folder / kind)
    print(hashlib.sha256((folder / kind / "tokenizer.json").read_bytes()).hexdigest())
"""


def test_every_process_gives_the_same_bytes_within_the_memory_stated(data: Path, tmp_path: Path) -> None:
    corpus = data / "pretrain" / "wikitext-2-test.txt"
    outputs = set()
    for hash_seed, threads in (("1", "1"), ("2", "3")):
        environment = os.environ | {
            "PYTHONHASHSEED": hash_seed,
            "RAYON_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "true",
        }
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / hash_seed), str(corpus)]
        outputs.add(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    [output] = outputs
    assert output.split()[::2] == ["True"] * 3
    assert len(set(output.split()[1::2])) == 3


class Corpus:
    """Stands for `documents`: made-up text without a file; knows how often and how far it was read."""

    def __init__(self, count: int, words: int = 300) -> None:
        self.count, self.words = count, words
        self.readings: list[int] = []

    def __call__(self, *_: Any, counts: Any = None, **__: Any) -> Iterator[Document]:
        self.readings.append(0)
        random = np.random.default_rng(0)
        for at in range(self.count):
            self.readings[-1] += 1
            yield Document(" ".join(f"word{number}" for number in random.integers(2000, size=self.words)), f"row {at}")


def test_training_reads_no_more_than_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, given, learn = Corpus(1000), list[list[str]](), tokenizer_training._learn

    def watched(kind: Kind, lower: bool, texts: Any, size: int, first: list[str]) -> Any:
        given.append(list(texts))
        return learn(kind, lower, given[-1], size, first)

    monkeypatch.setattr(tokenizer_training, "documents", corpus)
    monkeypatch.setattr(tokenizer_training, "_learn", watched)
    for seed in (0, 0, 1):
        done = train_tokenizer([], sample=1, seed=seed, size=500, quiet=True)
        assert done.bytes_read == sum(len(text.encode()) for text in given[-1])
        assert 0.98e6 < done.bytes_read <= 1e6
        assert done.sampled == done.bytes_read / done.bytes_in_all < 0.5
        assert done.report.held
    assert corpus.readings == [1000] * 6
    assert given[0] == given[1] != given[2]
    # from all parts of the corpus
    whole = [document.text for document in corpus()]
    places = np.array([whole.index(text) for text in given[0]])
    assert abs(places.mean() - 500) < 40


def test_what_it_takes_is_said_before_the_text_is_read_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = Corpus(900)
    said = list[str]()

    def documents(*_: Any, **__: Any) -> Iterator[Document]:
        said.append(capsys.readouterr().err)
        yield from corpus()

    monkeypatch.setattr(tokenizer_training, "documents", documents)
    train_tokenizer([], size=500, sample=1)
    assert said[0].startswith("Counting the text")
    assert "Training a wordpiece vocabulary of 500 tokens on 1.0 MB of text, of 2." in said[1]
    assert "because of sample=1" in said[1]
    assert "at most 85 MB of memory" in said[1]
    train_tokenizer([], size=500, quiet=True)
    assert said[2:] == ["", ""]
    assert capsys.readouterr().err == ""


def test_a_corpus_that_changes_meanwhile_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus(60)

    def documents(*_: Any, **__: Any) -> Iterator[Document]:
        corpus.count -= 10
        return corpus()

    monkeypatch.setattr(tokenizer_training, "documents", documents)
    with pytest.raises(InputError, match="changed between two readings"):
        train_tokenizer([], size=500, quiet=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "wordpeice"}, "kind='wordpeice' is not a kind of tokenizer; did you mean 'wordpiece'"),
        ({"size": 0}, "size=0 must be a whole number, 1 or more"),
        ({"size": 0.5}, "size=0.5 must be a whole number"),
        ({"sample": 0}, "sample=0 must be a whole number"),
        ({"sample": 10**6}, "more than the 20,000 megabytes"),
        ({"max_length": 3}, "max_length=3 must be a whole number, 5 or more"),
        ({"split": "lines"}, "split='lines'"),
        (
            {"size": 30},
            "size=30 is too small: the special tokens and the 36 pieces for single characters or bytes take 41",
        ),
        ({"size": 261, "kind": "bpe"}, "size=261 is too small: .* 256 .* take 261; give 522 or more"),
        ({"size": 20, "kind": "unigram"}, "size=20 is too small"),
    ],
)
def test_settings_that_cannot_be(small: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_tokenizer([small], **({"quiet": True} | settings))


def test_sources_without_text(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "blank.txt").write_text(" \n\n")
    (tmp_path / "odd.txt").write_text("\x01\x02 \x03")
    for source, message in (
        ("absent.txt", "There is no file"),
        ("folder", "has no file to read"),
        ("blank.txt", "no text"),
        ("odd.txt", "no character that is left after clean-up"),
    ):
        with pytest.raises(InputError, match=message):
            train_tokenizer([tmp_path / source], size=100, quiet=True)
    with pytest.raises(InputError, match="standard input"):
        train_tokenizer(["-"], quiet=True)


@pytest.mark.parametrize("kind", KINDS)
def test_too_little_text_is_a_smaller_vocabulary_and_a_warning(
    small: Path, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "clozeline"):
        done = train_tokenizer([small], kind=kind, quiet=True)
    size = done.tokenizer.vocab_size
    assert size < 1000
    assert f"too small for size=30,528: the vocabulary has {size} tokens" in caplog.text
    assert not done.report.held
    [known] = ids(done.tokenizer, ["the gardener"])
    assert done.tokenizer.decode(known).strip() == "the gardener"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lower", [True, False, None])
def test_letter_case(small: Path, tmp_path: Path, kind: Kind, lower: bool | None) -> None:
    small.write_text(TEXT + TEXT.upper(), encoding="utf-8")
    train_tokenizer([small], kind=kind, lower=lower, size=400, quiet=True).save(tmp_path / "saved")
    one, other = ids(Tokenizer.load(tmp_path / "saved"), ["the gardener", "THE GARDENER"])
    assert (one == other) is (kind == "wordpiece" if lower is None else lower)


def test_rare_characters_make_no_piece(small: Path) -> None:
    small.write_text(TEXT * 6 + " \u16a0\u16a1 ", encoding="utf-8")
    for kind in ("wordpiece", "unigram"):
        tokenizer = train_tokenizer([small], kind=kind, size=200, quiet=True).tokenizer
        assert tokenizer.id("\u16a0") is None
        assert tokenizer.unk_id in ids(tokenizer, ["\u16a0"])[0]
        assert tokenizer.unk_id not in ids(tokenizer, ["the cat saw a dog"])[0]


def test_characters_that_stand_alone_have_no_form_inside_words(small: Path) -> None:
    small.write_text(TEXT + " \u5317\u4eac, (naïve)", encoding="utf-8")
    tokens = set(train_tokenizer([small], size=200, quiet=True).tokenizer.vocabulary())
    assert {"\u5317", "(", "i", "##i", "##v"} <= tokens
    assert not {"##\u5317", "##(", "ï", "##ï"} & tokens


def test_long_text_is_cut_at_spaces_and_nothing_is_lost() -> None:
    texts = ["", "a b", "word " * 10_000, "x" * (3 * PIECE), "y" * PIECE + " z", "line\n" * PIECE]
    for text in texts:
        pieces = list(cut(text))
        assert "".join(pieces) == text
        assert max(map(len, pieces)) <= PIECE
        assert all(piece[0] in " \nxyz" for piece in pieces[1:])


def test_a_sample_and_what_is_held_out_share_nothing() -> None:
    pieces = [f"piece {at} " * (at % 7 + 1) for at in range(5000)]
    sizes = {piece: len(piece) for piece in pieces}
    for most in (10_000, 50_000, 10**9):
        sample = Sample.plan(pieces, most, seed=3)
        read = list(sample.read(pieces))
        taken, held = [piece for piece, out in read if not out], [piece for piece, out in read if out]
        assert not set(taken) & set(held)
        assert sum(map(sizes.__getitem__, taken)) == sample.taken <= most
        assert sum(map(sizes.__getitem__, held)) == sample.held <= sample.total // 50
        assert sample.total == sum(sizes.values())
        assert sample.characters["p"] == "".join(pieces).count("p")
    assert sample.taken + sample.held == sample.total


def test_unigram_counts_are_those_of_all_ways_to_divide_a_word() -> None:
    words, pieces = ["abab", "ba", "aabb"], np.array(["a", "b", "ab", "ba", "abab", "bb"])
    scores, weights = np.log([0.3, 0.2, 0.2, 0.1, 0.05, 0.15]), np.array([3.0, 2.0, 1.0])
    known = dict(zip(pieces.tolist(), scores.tolist(), strict=True))
    expected, best = dict.fromkeys(known, 0.0), []
    for word, weight in zip(words, weights.tolist(), strict=True):
        ways = list[list[str]]()
        for marks in itertools.product([False, True], repeat=len(word) - 1):
            bounds = [0, *(at for at, mark in enumerate(marks, 1) if mark), len(word)]
            ways.append([word[a:b] for a, b in itertools.pairwise(bounds)])
        ways = [way for way in ways if set(way) <= known.keys()]
        chances = [math.exp(sum(known[piece] for piece in way)) for way in ways]
        for way, chance in zip(ways, chances, strict=True):
            for piece in way:
                expected[piece] += weight * chance / sum(chances)
        best.append(sorted(ways[int(np.argmax(chances))]))
    lattice = _Lattice(words, pieces)
    np.testing.assert_allclose(lattice.expected(scores, weights), list(expected.values()), rtol=1e-12)
    owner, used = lattice.best(scores)
    assert [sorted(pieces[used[owner == at]].tolist()) for at in range(3)] == best
    # without some pieces, and without a word as one
    lattice.keep(np.array([True, True, False, True, False, False]))
    _, used = lattice.best(scores[[0, 1, 3]])
    assert used.max() == 2
    owner, used = _Lattice(pieces.tolist(), pieces, whole=False).best(scores)
    assert pieces[used[owner == 4]].tolist() == ["ab", "ab"]
    assert not (owner < 2).any()


def test_unigram_pieces_are_words_that_repeat() -> None:
    counts = {
        "\u2581the": 90,
        "\u2581garden": 40,
        "\u2581gardens": 25,
        "\u2581river": 30,
        "\u2581rivers": 20,
        "x" * 200: 1,
        "ß": 2,
    }
    found = learn_pieces(counts, 24)
    pieces, scores = [piece for piece, _ in found], [score for _, score in found]
    assert {"\u2581the", "\u2581garden", "\u2581river", *"".join(counts)} <= set(pieces)
    assert len(set(pieces)) == len(pieces) <= 24
    assert scores == sorted(scores, reverse=True)
    assert pieces[:2] == ["\u2581the", "\u2581garden"]
    assert 0.9 < sum(map(math.exp, scores)) < 1.1
    assert learn_pieces(dict(reversed(counts.items())), 24) == found


def test_imports_no_torch() -> None:
    program = "import sys, clozeline.tokenizer_training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
