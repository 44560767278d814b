"""Distinct-n, BLEU and self-BLEU against values computed by hand, and that they tell varied texts from alike ones."""

from __future__ import annotations

import math

import pytest

from clozeline.hardening import diversity as module
from clozeline.hardening.diversity import bleu, diversity, drawn, self_bleu
from clozeline.hardening.filters import Candidate, sift


def test_distinct_by_hand() -> None:
    found = diversity(["The cat sat.", "the CAT ran", "a dog"])
    assert (found.texts, found.words) == (3, 8)
    assert found.distinct_1 == 6 / 8  # the cat sat ran a dog
    assert found.distinct_2 == 4 / 5  # the-cat twice, cat-sat, cat-ran, a-dog; none across texts
    assert found.openings == {"the cat": 2 / 3, "a dog": 1 / 3}


def test_bleu_by_hand() -> None:
    text = ["the", "cat", "sat", "on", "the", "mat"]
    one, other = ["the", "cat", "lay", "on", "the", "mat", "today"], ["a", "cat", "sat", "there"]
    # of 6 words all match but none: the cat on the mat by the first, sat by the other
    # of 5 pairs 4: the-cat cat-sat on-the the-mat; of 4 threes 1: on-the-mat; of 3 fours none; each of these and one more
    expected = (6 / 6 * 5 / 6 * 2 / 5 * 1 / 4) ** (1 / 4)
    assert bleu(text, [one, other]) == pytest.approx(expected * math.exp(1 - 7 / 6))  # 7 words are nearer to 6 than 4
    assert bleu(text, [other]) == pytest.approx((2 / 6 * 2 / 6 * 1 / 5 * 1 / 4) ** (1 / 4))  # longer: no penalty


def test_bleu_clips_repeats_and_bounds() -> None:
    assert bleu(["the"] * 4, [["the", "cat"]]) == pytest.approx((1 / 4 * 1 / 4 * 1 / 3 * 1 / 2) ** (1 / 4))
    text = ["one", "two", "three", "four", "five"]
    assert bleu(text, [text]) == 1
    assert bleu(text, [["six"] * 5]) == 0
    assert bleu(["one"], [["one"]]) == 1
    assert bleu(text, [text[:4], text + text[:1]]) > bleu(text, [text + text[:1]])  # of two as near the shorter counts


def test_self_bleu_is_the_mean_against_all_others() -> None:
    texts = [text.split() for text in ("a b c d e", "a b c d f", "g h i", "a a b", "g h i")]
    every = [bleu(text, texts[:at] + texts[at + 1 :]) for at, text in enumerate(texts)]
    assert self_bleu(texts) == pytest.approx(sum(every) / len(every))


def test_alike_texts_are_told_from_varied_ones() -> None:
    alike = diversity([f"What a wonderful way to spend {number} hours of my life." for number in range(30)])
    varied = diversity([" ".join(f"word{7 * at + step}" for step in range(11)) for at in range(0, 300, 10)])
    assert alike.self_bleu is not None
    assert varied.self_bleu is not None
    assert alike.self_bleu > 0.7 > 0.4 > varied.self_bleu
    assert alike.distinct_2 < 0.3 < varied.distinct_2
    assert alike.openings == {"what a": 1.0}
    assert str(alike) == (
        f"texts 30, words 330, distinct-1 {alike.distinct_1:.3f}, distinct-2 {alike.distinct_2:.3f}, "
        f"self-BLEU {alike.self_bleu:.3f}, 100% begin with 'what a'"
    )
    assert alike.as_dict()["openings"] == {"what a": 1.0}


def test_few_texts() -> None:
    assert diversity(["one text"]).self_bleu is None
    assert (
        str(diversity(["one text"]))
        == "texts 1, words 2, distinct-1 1.000, distinct-2 1.000, 100% begin with 'one text'"
    )
    assert diversity([]).distinct_1 == 0
    assert str(diversity([]))
    assert diversity(["", "!"]).words == 1


def test_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(3, 5) == [0, 1, 2]
    assert drawn(9, 5) == [0, 2, 4, 6, 8]
    assert drawn(9, 0) == drawn(0, 9) == []
    texts = [[f"w{number}", "same", "end"] for number in range(9)]
    monkeypatch.setattr(module, "DRAWN", 5)
    assert self_bleu(texts) == self_bleu(texts[::2])


def test_cases_are_compared_with_ordinary_texts_of_their_length() -> None:
    train = [
        f"Review {number} goes on and on about the film, the cast, the seats, and the rain outside."
        for number in range(50)
    ]
    cases = [
        Candidate("A soup of great beauty.", "a", "c", "1"),
        Candidate("Why would anyone knit this lamp?", "a", "c", "2"),
    ]
    found = sift(cases, labels=["a"], train=train, held={})
    assert found.ordinary is not None
    assert found.diversity is not None
    assert (found.ordinary.texts, found.ordinary.words) == (found.diversity.texts, found.diversity.words) == (2, 11)
    assert found.ordinary == diversity(["Review 0 goes on and", "Review 49 goes on and on"])
    assert sift(cases, labels=["a"], train=[], held={}).ordinary is None
    assert sift([], labels=["a"], train=train, held={}).diversity is None
