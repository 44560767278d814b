"""How alike short texts are when words are swapped and clauses reordered: the weight of the words that they share.

The measure is the Jaccard index of two texts' sets of words, each word without its ending and weighted by the logarithm of
how rare it is. Order does not count, so it sees what the runs of three words of `data.shingles` cannot.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from clozeline.data.sentences import BREAKS, sentences
from clozeline.data.shingles import SHORT, words

NEAR = 0.45
"""The likeness from which a text repeats another. Measured with weights of the same data:

- MRPC (2,225 pairs of val and test): it finds 73.2 % of the paraphrases, and 36.2 % of the pairs that are none, which were
  picked for being alike; of 4.9 million pairs put together at random 0.003 %, mostly other reports of the same event.
- 35 paraphrases of suite sentences by hand: all 12 with words swapped or added, all 8 with clauses reordered, all 7 with
  another tense or number, and 1 of 8 that are reworded altogether.
- False alarms: of 552 texts none among 1,082 of a suite written apart (0.395 at most) and none among SST-2's 872 of dev; of
  1,000 sentences of film reviews 2 in the suite ("This movie is a waste of time and money.")."""

RARE = 3
"""Where one of two texts is a sentence of a longer one, of which there are many, `NEAR` is not enough: the words shared must
weigh as much as so many of the rarest, unless all are the same in order. Among 2,634 texts and sentences that finds, in the
sentences of 25,000 film reviews, the four copies that stand there and two that share a phrase ("make up its mind", "beyond a
shadow of a doubt"); else "I wouldn't recommend this hotel to anyone." would repeat a review. Of the 35 paraphrases it finds
22."""

PROPOSED = 0.2
"""The likeness from which an encoder is asked about two texts."""

BLOCK = 2**15
"""Pieces of texts that are compared at once: memory does not grow with the number of texts compared with."""

PRIOR = 50
"""Sentences taken for read before the first: what few texts say about how rare words are hardly counts."""

ENDINGS = (("ies", "y"), ("ing", ""), ("ed", ""), ("ly", ""), ("es", ""), ("s", ""))
"""Endings of English words and what stands in their place where three letters stay: the frequent ones of Porter (1980)."""


def stem(word: str) -> str:
    """A word without the ending that tense or number gave it: "stopped", "stopping" and "stops" are "stop"."""
    for ending, instead in ENDINGS:
        if word.endswith(ending) and len(word) >= len(ending) + 3:
            word = word.removesuffix(ending) + instead
            break
    if len(word) > 3 and word[-1] == word[-2]:
        return word[:-1]
    return word.removesuffix("e") if len(word) > 3 else word


class Piece(NamedTuple):
    """A text, or a sentence of `SHORT` words or more of a longer one."""

    text: str
    words: list[str]
    whole: bool


class Near(NamedTuple):
    """A text of those compared with: its number, which piece of it is alike, and how much, from 0 to 1.

    repeats: whether that makes it a repeat; if not, two whole texts are as alike as `PROPOSED`.
    """

    text: int
    piece: str
    likeness: float
    repeats: bool


def parts(text: str) -> list[Piece]:
    """The sentences that can be taken over by themselves, of a text that has several."""
    cut = sentences(text)
    found = [Piece(one, words(BREAKS.sub(" ", one)), False) for one in cut] if len(cut) > 1 else []
    return [piece for piece in found if len(piece.words) >= SHORT]


class _Numbers(dict[str, int]):
    """The number of a word's stem, given in the order of their first coming."""

    def __init__(self) -> None:
        self.stems: dict[str, int] = {}

    def __missing__(self, word: str) -> int:
        self[word] = number = self.stems.setdefault(stem(word), len(self.stems))
        return number


class Weigher:
    """Knows what each word weighs: the logarithm of how many sentences of a sample there are to one that has it."""

    def __init__(self, sample: Iterable[str]) -> None:
        """sample: texts of the kinds that will be compared; some thousand are enough."""
        self._numbers = _Numbers()
        having: Counter[int] = Counter()
        total = PRIOR
        for text in sample:
            for sentence in sentences(text):
                having.update(self.set(words(sentence)))
                total += 1
        self.rarest = math.log(total)
        known = np.array([having[number] for number in range(len(self._numbers.stems))], np.int64)
        self._weights = self.rarest - np.log(1 + known)

    def set(self, found: Iterable[str]) -> set[int]:
        """The numbers of words, without their endings."""
        return {self._numbers[word] for word in found}

    def weights(self, numbers: np.ndarray) -> np.ndarray:
        """(n,) the weights of words by their numbers; of one that the sample lacks that of the rarest."""
        found = np.full(len(numbers), self.rarest)
        known = numbers < len(self._weights)
        found[known] = self._weights[numbers[known]]
        return found


class Index:
    """Pieces of texts by the words that they have, to be compared with one piece after the other."""

    def __init__(self, weigher: Weigher, pieces: Sequence[Piece]) -> None:
        sets = [weigher.set(piece.words) for piece in pieces]
        sizes = [len(found) for found in sets]
        flat = np.fromiter((number for found in sets for number in found), np.int64, sum(sizes))
        owners = np.repeat(np.arange(len(sets), dtype=np.int32), sizes)
        self._weigher = weigher
        self._totals = np.bincount(owners, weigher.weights(flat), len(sets))
        order = np.argsort(flat, kind="stable")
        self._words, self._owners = flat[order], owners[order]
        self._whole = np.array([piece.whole for piece in pieces], bool)

    def likeness(self, piece: Piece) -> tuple[np.ndarray, np.ndarray]:
        """(n,) how alike each piece is to this one, from 0 to 1; (n,) how much the words weigh that it shares with it."""
        own = np.fromiter(self._weigher.set(piece.words), np.int64)
        weights = self._weigher.weights(own)
        begins, ends = (np.searchsorted(self._words, own, side) for side in ("left", "right"))
        having = [self._owners[begin:end] for begin, end in zip(begins, ends, strict=True)]
        shared = np.bincount(np.concatenate(having), np.repeat(weights, ends - begins), len(self._totals))
        united = weights.sum() + self._totals - shared
        return np.divide(shared, united, out=np.zeros(len(united)), where=united > 0), shared

    def near(self, piece: Piece) -> Iterator[tuple[int, float, bool]]:
        """Which pieces it is near, how much, and whether it repeats them; see `Near`."""
        likeness, shared = self.likeness(piece)
        whole = self._whole & piece.whole
        repeats = (likeness >= NEAR) & (whole | (shared >= RARE * self._weigher.rarest))
        for at in np.flatnonzero(repeats | (whole & (likeness >= PROPOSED))).tolist():
            yield at, float(likeness[at]), bool(repeats[at])


def nearest(
    weigher: Weigher, texts: Sequence[Sequence[Piece]], others: Iterable[Sequence[Piece]], most: int
) -> list[list[Near]]:
    """For each text the others that are near, at most `most`: those it repeats first, then the more alike first.

    texts, others: the pieces of each text. It is as near another as the nearest pieces of the two.
    """
    found: list[list[Near]] = [[] for _ in texts]
    for owners, pieces in _blocks(others):
        index = Index(weigher, pieces)
        for near, own in zip(found, texts, strict=True):
            for piece in own:
                near.extend(
                    Near(owners[at], pieces[at].text, likeness, repeats) for at, likeness, repeats in index.near(piece)
                )
            near.sort(key=lambda one: (not one.repeats, -one.likeness, one.text))
            del near[most:]
    return found


def _blocks(others: Iterable[Sequence[Piece]]) -> Iterator[tuple[list[int], list[Piece]]]:
    """About `BLOCK` pieces at a time, with the numbers of the texts that they are of."""
    owners: list[int] = []
    pieces: list[Piece] = []
    for number, own in enumerate(others):
        owners.extend([number] * len(own))
        pieces.extend(own)
        if len(pieces) >= BLOCK:
            yield owners, pieces
            owners, pieces = [], []
    if pieces:
        yield owners, pieces
