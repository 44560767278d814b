"""Unigram pieces (Kudo 2018, "Subword Regularization") out of word counts, in numpy, always the same for the same counts.

The trainer of the `tokenizers` library gives other scores in each process, and its candidates are what two different words
share, so that few whole words are among them: with 16,000 pieces out of 6 MB of English prose, a word of it took 1.60 pieces
on average, with these here 1.43, with SentencePiece's own 1.42.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from clozeline.data.shuffle import mixed

LONGEST = 16
"""Characters of a piece, as in SentencePiece; so are the next three."""
STEPS = 2  # of EM before the pieces are pruned again
SHRINK = 0.75  # share of the pieces that stays then
USED = 0.5  # how often a piece must be expected in the text
CANDIDATES = 300_000  # SentencePiece takes a million, most of which are gone after the first steps
WORDS = 200_000
"""Different words that are learned from, the most frequent ones; of 84 MB of English the others are 0.3 % of the text."""
PART = 64
"""Characters; longer words, such as text without spaces, are read in parts."""


def learn_pieces(counts: Mapping[str, int], size: int) -> list[tuple[str, float]]:
    """The best `size` pieces for words that occur so often, with the logarithms of their probabilities, best first.

    Every character of the words is one of them. There may be fewer than `size`.
    """
    parts = Counter[str]()
    for word, times in counts.items():
        for at in range(0, len(word), PART):
            parts[word[at : at + PART]] += times
    alphabet = Counter[str]()
    for word, times in parts.items():
        for char in word:
            alphabet[char] += times
    words = sorted(sorted(parts, key=lambda word: (-parts[word], word))[:WORDS])
    words += sorted(alphabet.keys() - set("".join(words)))
    weights = np.array([parts[word] or alphabet[word] for word in words], np.float64)

    pieces, scores = _candidates(words, weights, max(CANDIDATES, 4 * size))
    lattice = _Lattice(words, pieces)
    goal = size * 11 // 10  # as in SentencePiece, the rest goes by probability alone
    while True:
        for _ in range(STEPS):
            expected = lattice.expected(scores, weights)
            kept = (expected >= USED) | (np.char.str_len(pieces) == 1)
            lattice.keep(kept)
            pieces, expected = pieces[kept], np.maximum(expected[kept], USED)
            scores = _digamma(expected) - _digamma(expected.sum())
        if len(pieces) <= goal:
            break
        loss = _loss(lattice, pieces, scores, weights)
        kept = np.zeros(len(pieces), bool)
        kept[np.argsort(-loss, kind="stable")[: max(goal, int(len(pieces) * SHRINK))]] = True
        kept &= loss > -np.inf
        lattice.keep(kept)
        pieces, scores = pieces[kept], scores[kept]

    # sums are exact to far more digits on one machine, but may differ a little on another
    found = sorted(zip((-scores.round(3)).tolist(), pieces.tolist(), strict=True))
    longer = [one for one in found if len(one[1]) > 1][: size - len(alphabet)]
    return [(piece, -score) for score, piece in sorted([one for one in found if len(one[1]) == 1] + longer)]


class _Lattice:
    """All ways to divide words into pieces. A word of n characters has n + 1 nodes; an edge is a piece between two.

    Edges, (E,) each: start and end node, piece, and how many characters of the word are before the end. Those that end in
    one node stand together, and nodes deeper in their words come later, so a step takes all words at once.
    """

    def __init__(self, words: Sequence[str], pieces: np.ndarray, *, whole: bool = True) -> None:
        """whole: whether a word may be one piece."""
        known = _Text(pieces.tolist())
        keys = {}
        for length, places, hashes in known.spans():
            own = (known.before[places] == 0) & (known.lengths[known.word[places]] == length)
            order = np.argsort(hashes[own])
            keys[length] = hashes[own][order], known.word[places[own]][order]
        text = _Text(words)
        edges = []
        for length, places, hashes in text.spans():
            if length not in keys or not len(keys[length][0]):
                continue
            sought, numbers = keys[length]
            at = np.minimum(np.searchsorted(sought, hashes), len(sought) - 1)
            found = sought[at] == hashes
            if not whole:
                found &= text.lengths[text.word[places]] != length
            place = places[found]
            start = place + text.word[place]
            columns = start, start + length, numbers[at[found]], text.before[place] + length
            edges.append(np.stack(columns).astype(np.int32))
        joined = np.concatenate(edges, axis=1)
        order = np.lexsort((joined[0], joined[1], joined[3]))
        self.start, self.end, self.piece, self.depth = joined[:, order]
        self.last = np.cumsum(text.lengths + 1) - 1  # (W,) the last node of each word
        self.first = self.last - text.lengths
        self._divide()

    def _divide(self) -> None:
        """Find the steps: edges of one depth, where in them a node's begin, and how many it has."""
        heads = np.flatnonzero(np.diff(self.end, prepend=-1))
        widths = np.diff(heads, append=len(self.end))
        bounds = np.flatnonzero(np.diff(self.depth[heads], prepend=0, append=0))
        self.steps = []
        for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            begin, width = int(heads[low]), widths[low:high]
            self.steps.append((slice(begin, begin + int(width.sum())), heads[low:high] - begin, width))

    def keep(self, kept: np.ndarray) -> None:
        """Leave only these pieces, (P,) bool; those after one that goes move up."""
        edges, number = kept[self.piece], np.cumsum(kept) - 1
        self.start, self.end, self.depth = self.start[edges], self.end[edges], self.depth[edges]
        self.piece = number[self.piece[edges]].astype(np.int32)
        self._divide()

    def expected(self, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(P,) how often each piece is in the text, over all ways to divide it, by their probability."""
        total = np.zeros(self.last[-1] + 1)  # log probability of the part of the word before a node
        share = np.empty(len(self.end))  # of an edge, among those that end where it does
        for edges, heads, widths in self.steps:
            value = total[self.start[edges]] + scores[self.piece[edges]]
            most = np.maximum.reduceat(value, heads)
            value = np.exp(value - np.repeat(most, widths))
            sums = np.add.reduceat(value, heads)
            total[self.end[edges][heads]] = most + np.log(sums)
            share[edges] = value / np.repeat(sums, widths)
        passed = np.zeros(len(total))  # how often a node is on the way
        passed[self.last] = weights
        for edges, _, _ in reversed(self.steps):
            share[edges] *= passed[self.end[edges]]
            np.add.at(passed, self.start[edges], share[edges])
        return np.bincount(self.piece, share, len(scores))

    def best(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest way to divide each word: (n,) words and (n,) pieces of theirs."""
        total = np.full(self.last[-1] + 1, -np.inf)
        total[self.first] = 0
        into = np.full(len(total), -1)  # the edge by which a node is reached
        for edges, heads, widths in self.steps:
            value = total[self.start[edges]] + scores[self.piece[edges]]
            most = np.maximum.reduceat(value, heads)
            at = np.where(value == np.repeat(most, widths), np.arange(len(value)), len(value))
            nodes = self.end[edges][heads]
            total[nodes] = most
            into[nodes] = np.minimum.reduceat(at, heads) + edges.start
        word, node = np.arange(len(self.last)), self.last
        words, pieces = [], []
        while len(word):
            edge = into[node]
            word, edge = word[edge >= 0], edge[edge >= 0]
            words.append(word)
            pieces.append(self.piece[edge])
            node = self.start[edge]
        return np.concatenate(words), np.concatenate(pieces)


class _Text:
    """The characters of words, one after another: (C,) codes, the word that each is in, and how many are before it there."""

    def __init__(self, words: Sequence[str]) -> None:
        self.codes = np.frombuffer("".join(words).encode("utf-32-le"), np.uint32).astype(np.uint64)
        self.lengths = np.fromiter(map(len, words), np.int64, len(words))
        self.word = np.repeat(np.arange(len(words)), self.lengths)
        self.before = np.arange(len(self.codes)) - np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)

    def spans(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """For each length up to `LONGEST`: the places where such a span begins, and a 64-bit hash of each span."""
        places, hashes = np.arange(len(self.codes)), np.zeros(len(self.codes), np.uint64)
        room = self.lengths[self.word] - self.before
        for length in range(1, LONGEST + 1):
            fits = room[places] >= length
            places = places[fits]
            hashes = mixed(hashes[fits], self.codes[places + length - 1])
            if len(places):
                yield length, places, hashes


def _candidates(words: Sequence[str], weights: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """(P,) all characters, and spans that occur twice and more often than any longer span around them; and (P,) scores."""
    text = _Text(words)
    counts = np.zeros(len(text.codes))  # of the span of a length that begins at a place
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # of each length: places, lengths, how often
    for length, places, hashes in text.spans():
        _, first, kind = np.unique(hashes, return_index=True, return_inverse=True)
        times = np.bincount(kind, weights[text.word[places]])
        counts[:] = 0
        counts[places] = times[kind]
        if length > 2:
            place, lengths, often = found[-1]
            alone = (counts[place] < often) & ((text.before[place] == 0) | (counts[place - 1] < often))
            found[-1] = place[alone], lengths[alone], often[alone]
        taken = (times > 1) | (length == 1)
        found.append((places[first[taken]], np.full(taken.sum(), length), times[taken]))
    place, lengths, often = (np.concatenate(column) for column in zip(*found, strict=True))
    value = often * lengths
    best = np.lexsort((place, lengths, -value, lengths > 1))[:most]
    joined = "".join(words)
    spans = zip(place[best].tolist(), lengths[best].tolist(), strict=True)
    return np.array([joined[at : at + length] for at, length in spans]), np.log(value[best] / value[best].sum())


def _loss(lattice: _Lattice, pieces: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(P,) how much less likely the text is without each piece, if what it stood for is read as its next best pieces."""
    word, used = lattice.best(scores)
    times = np.bincount(used, weights[word], len(pieces))
    owner, other = _Lattice(pieces.tolist(), pieces, whole=False).best(scores)
    others = np.bincount(owner, minlength=len(pieces))
    with np.errstate(divide="ignore", invalid="ignore"):
        instead = np.bincount(owner, np.log(times[other] + times[owner]), len(pieces))
        total = times.sum()
        loss = times * (np.log(times / total) - instead + others * np.log(total + times * (others - 1)))
    loss[times == 0] = -np.inf
    loss[np.char.str_len(pieces) == 1] = np.inf
    return loss


def _digamma(x: np.ndarray) -> np.ndarray:
    """What EM takes for the logarithm of a count: Kudo's Bayesian variant, by which rare pieces lose. x: positive."""
    near = sum(1 / (x + step) for step in range(7))
    x = x + 7
    square = 1 / (x * x)
    return np.log(x) - 0.5 / x - square * (1 / 12 - square * (1 / 120 - square / 252)) - near
