"""How varied texts are: generated ones often begin alike and say the same again, and a model learns that instead."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from clozeline.data.shingles import words

DRAWN = 200
"""Texts of which self-BLEU is taken, each against all others: the work grows with their square."""

ORDERS = 4  # of BLEU: runs of one to four words
OPENING = 2  # words
OPENINGS = 3  # that are named


@dataclass(frozen=True)
class Diversity:
    """How varied some texts are.

    texts, words: how many there are. distinct_1, distinct_2: different words, and different pairs of words in a row within
    a text, divided by all of them (Li et al. 2016); both fall as there are more words, so that only samples of one size
    compare. self_bleu: the mean BLEU-4 of a text with the others as references (Zhu et al. 2018), 0 to 1, high where texts
    repeat each other, as in `bleu`; None for fewer than two texts. openings: the most frequent first two words, with the
    part of the texts that begin so.
    """

    texts: int
    words: int
    distinct_1: float
    distinct_2: float
    self_bleu: float | None
    openings: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    def __str__(self) -> str:
        bleu = "" if self.self_bleu is None else f", self-BLEU {self.self_bleu:.3f}"
        first = next(iter(self.openings.items()), None)
        opening = "" if first is None else f", {first[1]:.0%} begin with {first[0]!r}"
        return (
            f"texts {self.texts:,}, words {self.words:,}, distinct-1 {self.distinct_1:.3f}, "
            f"distinct-2 {self.distinct_2:.3f}{bleu}{opening}"
        )


def diversity(texts: Sequence[str]) -> Diversity:
    """How varied texts are, by their words without case and marks."""
    found = [words(text) for text in texts]
    pairs = [pair for own in found for pair in pairwise(own)]
    total = sum(map(len, found))
    opening = Counter(" ".join(own[:OPENING]) for own in found if own)
    return Diversity(
        texts=len(texts),
        words=total,
        distinct_1=len({word for own in found for word in own}) / max(total, 1),
        distinct_2=len(set(pairs)) / max(len(pairs), 1),
        self_bleu=self_bleu(found),
        openings={name: count / len(texts) for name, count in opening.most_common(OPENINGS)},
    )


def drawn(count: int, most: int) -> list[int]:
    """The numbers of `most` of `count` things, evenly from first to last; of all where there are not so many."""
    return list(range(count)) if count <= most else np.linspace(0, count - 1, most).round().astype(int).tolist()


def self_bleu(texts: Sequence[Sequence[str]]) -> float | None:
    """The mean BLEU of each text with all others as references; at most `DRAWN` take part, drawn evenly."""
    taken = [texts[at] for at in drawn(len(texts), DRAWN)]
    if len(taken) < 2:
        return None
    grams = [_grams(text) for text in taken]
    # of each run of words the two texts with most of it: the others of a text have as much as the first that is not it
    best: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for at, own in enumerate(grams):
        for gram, count in own.items():
            best[gram] = sorted([*best.get(gram, ()), (count, at)], reverse=True)[:2]
    lengths = [len(text) for text in taken]
    scores = []
    for at, own in enumerate(grams):
        limits = {gram: next((count for count, text in best[gram] if text != at), 0) for gram in own}
        scores.append(_score(own, limits, lengths[at], [length for other, length in enumerate(lengths) if other != at]))
    return sum(scores) / len(scores)


def bleu(text: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU-4 (Papineni et al. 2002) of the words of one text against references, 0 to 1.

    Smoothed as method 2 of Chen and Cherry (2014, after Lin and Och 2004): from pairs of words on, one is added to the runs
    that match and to all runs. Of the reference lengths the nearest counts, of two the shorter.
    """
    limits: Counter[tuple[str, ...]] = Counter()
    for reference in references:
        limits |= _grams(reference)
    return _score(_grams(text), limits, len(text), [len(reference) for reference in references])


def _grams(text: Sequence[str]) -> Counter[tuple[str, ...]]:
    """The runs of one to `ORDERS` words."""
    return Counter(
        tuple(text[at : at + order]) for order in range(1, ORDERS + 1) for at in range(len(text) - order + 1)
    )


def _score(
    own: Mapping[tuple[str, ...], int], limits: Mapping[tuple[str, ...], int], length: int, others: Sequence[int]
) -> float:
    """BLEU of a text with these runs of words, of which at most `limits` match; others: the lengths of the references."""
    matched = [0] * ORDERS
    for gram, count in own.items():
        matched[len(gram) - 1] += min(count, limits.get(gram, 0))
    if matched[0] == 0:
        return 0.0
    mean = math.log(matched[0] / length)
    for order in range(2, ORDERS + 1):
        mean += math.log((matched[order - 1] + 1) / (max(length - order + 1, 0) + 1))
    nearest = min(others, key=lambda other: (abs(other - length), other))
    return math.exp(mean / ORDERS + min(0.0, 1 - nearest / length))
