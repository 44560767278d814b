"""The likeness of short texts: what it sees, that blocks and order change nothing, and its figures on real paraphrases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from paraphrases import EDITED, REORDERED, RETOLD, REWORDED

from clozeline.data.shingles import words
from clozeline.hardening import likeness
from clozeline.hardening.likeness import NEAR, PRIOR, RARE, Index, Near, Piece, Weigher, nearest, parts, stem
from clozeline.hardening.repeats import Comparer


def whole(text: str) -> Piece:
    return Piece(text, words(text), True)


def alike(one: str, other: str, sample: Sequence[str] = ()) -> float:
    return float(Index(Weigher(sample), [whole(one)]).likeness(whole(other))[0][0])


@pytest.mark.parametrize(
    "forms",
    [
        ("stop", "stops", "stopped", "stopping"),
        ("story", "stories"),
        ("hate", "hates", "hated", "hating"),
        ("call", "calls", "called"),
        ("sad", "sadly"),
        ("is",),
        ("bed",),
        ("king",),
        ("日",),
    ],
)
def test_endings_do_not_count(forms: tuple[str, ...]) -> None:
    assert len({stem(form) for form in forms}) == 1


def test_short_words_keep_their_endings() -> None:
    assert [stem(word) for word in ("is", "bed", "king", "the", "red")] == ["is", "bed", "king", "the", "red"]


def test_by_hand() -> None:
    sample = ["a b", "a c", "a d"]  # 3 sentences and PRIOR: a is in three, b, c and d in one, x and y in none
    a, b, rarest = (math.log((PRIOR + 3) / (1 + count)) for count in (3, 1, 0))
    assert alike("a b x", "a b y", sample) == pytest.approx((a + b) / (a + b + 2 * rarest))
    assert alike("x a a b", "b, a; X!", sample) == pytest.approx(1)
    assert alike("x", "y", sample) == 0


def test_sentences_of_longer_texts() -> None:
    text = "It rained. The ferryman sang a song about his late mother's goats. We slept!"
    (part,) = parts(text)
    assert (part.text, part.whole) == ("The ferryman sang a song about his late mother's goats.", False)
    assert parts(part.text) == []
    (near,) = nearest(
        Weigher([]), [[whole("The ferryman sang songs about his late mother's goats.")]], [parts(text)], 3
    )[0]
    assert (near.text, near.piece, near.repeats) == (0, part.text, True)


def test_a_sentence_of_frequent_words_is_no_part_to_repeat() -> None:
    text = "I would not recommend this to anyone at all"
    common = [text] * 1000
    index = Index(Weigher(common), [Piece(text, words(text), False), whole(text)])
    ratio, shared = index.likeness(whole(text))
    assert ratio.tolist() == pytest.approx([1, 1])
    assert (shared < RARE * Weigher(common).rarest).all()
    assert [(at, repeats) for at, _, repeats in index.near(whole(text))] == [(1, True)]


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(0)
    texts = [" ".join(f"w{number}" for number in chance.integers(0, 30, 6)) for _ in range(120)]
    weigher, pieces = Weigher(texts), [[whole(text)] for text in texts]
    found = nearest(weigher, pieces[:20], pieces[20:], 3)
    monkeypatch.setattr(likeness, "BLOCK", 7)
    again = nearest(weigher, pieces[:20], pieces[20:], 3)
    assert [[near[:2] for near in each] for each in again] == [[near[:2] for near in each] for each in found]
    index = Index(weigher, [piece for (piece,) in pieces[20:]])
    for (piece,), near in zip(pieces, found, strict=False):
        every = index.likeness(piece)[0]
        best = sorted(every[every >= likeness.PROPOSED], reverse=True)[:3]
        assert [one.likeness for one in near] == pytest.approx(best)
        assert [one.likeness for one in near] == pytest.approx([every[one.text] for one in near])
        assert all(isinstance(one, Near) and one.repeats == (one.likeness >= NEAR) for one in near)


# real paraphrases


def test_mrpc(data: Path) -> None:
    rows = []
    for name in ("val", "test"):
        lines = (data / "glue" / "MRPC" / f"msr-para-{name}.tsv").read_text(encoding="utf-8-sig").splitlines()[1:]
        rows += [line.split("\t") for line in lines]
    firsts, seconds, labels = (
        [row[3] for row in rows],
        [row[4] for row in rows],
        np.array([row[0] == "1" for row in rows]),
    )
    index = Index(Weigher(firsts + seconds), [whole(text) for text in firsts])
    found = np.stack([index.likeness(whole(text))[0] for text in seconds])
    own, other = np.diag(found) >= NEAR, found >= NEAR
    np.fill_diagonal(other, False)
    assert len(rows) == 2225
    assert own[labels].mean() == pytest.approx(0.732, abs=0.005)
    assert own[~labels].mean() == pytest.approx(0.362, abs=0.005)
    assert other.mean() < 5e-5


def test_an_encoder_finds_more_paraphrases(minilm: Path) -> None:
    import clozeline as cl

    model = cl.load(minilm)

    def embed(texts: Sequence[str]) -> np.ndarray:
        return np.asarray(model.embed(list(texts), normalize=True))

    suite = [text for pairs in (EDITED, REORDERED, RETOLD, REWORDED) for text, _ in pairs]
    found = []
    for given in (None, embed):
        comparer = Comparer([text for _, text in REWORDED], suite, given)
        repeats = comparer.against(range(len(REWORDED)), suite, sentences=True)
        assert all(repeat.like == REWORDED[at][0] for at, repeat in repeats.items())
        found.append(len(repeats))
    assert found[0] <= 2
    assert found[1] >= 6
