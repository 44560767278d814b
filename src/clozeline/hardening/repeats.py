"""Which of some short texts repeat other texts or each other: word for word, in nearly the same words, or by meaning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from clozeline.data.shingles import SHORT, words
from clozeline.errors import InputError
from clozeline.hardening.likeness import NEAR, PROPOSED, Index, Piece, Weigher, nearest, parts

CLOSE = 0.75
"""The cosine of two texts' vectors from which one repeats the other, where their words are as alike as `PROPOSED`. With
all-MiniLM-L6-v2 it finds, beside what `NEAR` does, 33 of the 35 paraphrases there instead of 28 and 86.7 % of MRPC's instead
of 73.2 %, and still no text of 552 in a suite written apart, where the cosine is 0.736 at most."""

ASKED = 3
"""Texts of each set, the most alike by words, that a text's vector is compared with at most."""

LONGER = 4
"""A text with more than so many times the characters of the longest one repeats none as a whole and is not compared so."""

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts to their (n, D) vectors."""


class Repeat(NamedTuple):
    """The text, or sentence of a text, that is repeated; 1 where words and order are equal, else how alike they are: the
    likeness of the words or, where that told, the cosine; whether words and order of the two whole texts are equal."""

    like: str
    likeness: float
    exact: bool


class Comparer:
    """Some short texts, to be compared with sets of others and with each other."""

    def __init__(self, texts: Sequence[str], sample: Iterable[str], embed: Embed | None = None) -> None:
        """texts: each with a word. sample: texts that tell how rare words are; not these, in which the words of a template
        would be frequent and count for nothing. embed: compares meanings where given."""
        self._texts = texts
        self._wholes = [Piece(text, words(text), True) for text in texts]
        self._keys = [_key(piece) for piece in self._wholes]
        self._longest = LONGER * max(map(len, texts), default=0)
        self._weigher = Weigher(sample)
        self._embed = embed
        self._vectors: dict[str, np.ndarray] = {}

    def against(self, which: Sequence[int], others: Iterable[str], *, sentences: bool) -> dict[int, Repeat]:
        """Those of `which`, numbers of texts, that repeat one of the others. sentences: or have a sentence of one.

        A sentence of `SHORT` words or more is repeated where its words are the same in order, however common they are; one
        with other words only where it says so much as `likeness.RARE` asks for.
        """
        own = [[self._wholes[at], *(parts(self._texts[at]) if sentences else ())] for at in which]
        wanted = {_key(piece) for pieces in own for piece in pieces}
        same: dict[tuple[str, bool], str] = {}  # of the others only what is wanted, however many there are

        def cut() -> Iterator[list[Piece]]:
            for text in others:
                pieces = [Piece(text, words(text), True)] if len(text) <= self._longest else []
                pieces += parts(text) if sentences else []
                for piece in pieces:
                    if (key := _key(piece)) in wanted:
                        same.setdefault((key, piece.whole), piece.text)
                yield pieces

        found: dict[int, Repeat] = {}
        asked: list[tuple[int, str]] = []
        for at, pieces, near in zip(which, own, nearest(self._weigher, own, cut(), ASKED), strict=True):
            long = [_key(piece) for piece in pieces if len(piece.words) >= SHORT]
            copied = [same[key, whole] for key in long for whole in (True, False) if (key, whole) in same]
            if (key := (self._keys[at], True)) in same:  # filled as `cut` was read
                found[at] = Repeat(same[key], 1.0, True)
            elif copied:
                found[at] = Repeat(copied[0], 1.0, False)
            elif near and near[0].repeats:
                found[at] = Repeat(near[0].piece, near[0].likeness, False)
            else:
                asked.extend((at, one.piece) for one in near)
        cosines = self._cosines([(self._texts[at], like) for at, like in asked])
        for (at, like), cosine in zip(asked, cosines, strict=True):
            if cosine >= CLOSE and (at not in found or cosine > found[at].likeness):
                found[at] = Repeat(like, cosine, False)
        return found

    def among(self, which: Sequence[int], labels: Sequence[str]) -> dict[int, Repeat]:
        """Those of `which` that repeat an earlier one of them which repeats none itself.

        labels: of each of `which`. Nearly the same texts with different labels are no repeats: from pairs in which a word
        turns the label a model learns most (Kaushik, Hovy and Lipton 2020). The same texts are, whatever their labels.
        """
        index = Index(self._weigher, [self._wholes[at] for at in which])
        kinds = np.array(labels)
        left = np.zeros(len(which), bool)  # what came before and stays
        first: dict[str, int] = {}
        found: dict[int, Repeat] = {}
        asked: list[tuple[int, int]] = []
        for row, at in enumerate(which):
            earlier = first.setdefault(self._keys[at], at)
            if earlier != at:
                found[at] = Repeat(self._texts[earlier], 1.0, True)
                continue
            likeness = index.likeness(self._wholes[at])[0] * (left & (kinds == kinds[row]))
            best = int(likeness.argmax())
            if likeness[best] >= NEAR:
                found[at] = Repeat(self._texts[which[best]], float(likeness[best]), False)
                continue
            left[row] = True
            near = np.flatnonzero(likeness >= PROPOSED)
            asked.extend((at, which[other]) for other in near[np.argsort(-likeness[near], kind="stable")][:ASKED])
        cosines = self._cosines([(self._texts[at], self._texts[other]) for at, other in asked])
        for (at, other), cosine in zip(asked, cosines, strict=True):
            if cosine >= CLOSE and at not in found and other not in found:
                found[at] = Repeat(self._texts[other], cosine, False)
        return found

    def _cosines(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The cosine of the vectors of two texts each; 0 without an encoder."""
        if self._embed is None:
            return [0.0] * len(pairs)
        fresh = [text for text in dict.fromkeys(chain(*pairs)) if text not in self._vectors]
        if fresh:
            vectors = np.asarray(self._embed(fresh), np.float64)
            if vectors.ndim != 2 or len(vectors) != len(fresh):
                raise InputError(f"embed gave an array {vectors.shape} for {len(fresh)} texts: give a row for each.")
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            self._vectors |= zip(fresh, vectors, strict=True)
        return [float(self._vectors[one] @ self._vectors[other]) for one, other in pairs]


def _key(piece: Piece) -> str:
    """What pieces with the same words in the same order share."""
    return " ".join(piece.words)
