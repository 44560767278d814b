"""Documents to training examples: segments of a document for masked words, and pairs of segments for what follows what.

An example is a range of the corpus, or two; its tokens are read when its batch is. Which examples there are is a function of
the corpus, the seed and the pass over it, section by section.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clozeline.data.shards import Shards
from clozeline.data.shuffle import mixed, permuted
from clozeline.errors import InputError

Pairs = Literal["next", "order"]
UNKNOWN = -100
"""The label of an example that is no pair."""
POOL_TOKENS = 2**20
"""About so many tokens are shuffled together at most; sections come in random order before."""


@dataclass(frozen=True, eq=False)
class Examples:
    """n examples. spans: (n, 4) where in the corpus the first segment begins and ends, and the second, empty where there is
    none; labels: (n,) 0 where the second follows (or both are in order), 1 where it does not (or they are swapped), or
    UNKNOWN; keys: (n,) uint64, what their masks are drawn from; cut: (n,) tokens of its section that were left out of it
    because it had to be cut to its length, and that no other example has."""

    spans: np.ndarray
    labels: np.ndarray
    keys: np.ndarray
    cut: np.ndarray

    def __len__(self) -> int:
        return len(self.spans)

    @property
    def tokens(self) -> np.ndarray:
        """(n,) content tokens of each."""
        return self.spans[:, 1] - self.spans[:, 0] + self.spans[:, 3] - self.spans[:, 2]


Row = tuple[int, int, int, int, int, int]
"""The span of a first segment, that of a second, the label, and how many tokens were cut."""


class Segments:
    """The examples of a corpus, a pool of sections at a time.

    Args:
        room: content tokens of an example, by whether it is a pair.
        pairs: "next" makes pairs whose second segment follows or is from another document, as published for BERT;
            "order" pairs that follow each other, or are swapped (ALBERT); None makes single segments.
        short: share of the sections whose examples are made shorter, so that the model sees all lengths (BERT: 0.1).
        pool_tokens: about how many are shuffled together.
        copies: how many different versions of the examples and their masks there are: 0 makes every pass another one
            (RoBERTa), 1 makes all the same, 10 was BERT's.

    Raises:
        InputError: second segments from other documents are wanted, but there is one document only.
    """

    def __init__(
        self,
        shards: Shards,
        pairs: Pairs | None,
        *,
        short: float = 0.1,
        copies: int = 0,
        seed: int = 0,
        pool_tokens: int = POOL_TOKENS,
    ) -> None:
        if pairs == "next" and shards.documents < 2:
            raise InputError(
                "Next-sentence pairs need at least two documents, and the corpus has one; where a file holds several, "
                "say how they are divided (split='blank' or 'line')."
            )
        self.shards, self.pairs, self.short, self.copies, self.seed = shards, pairs, short, copies, seed
        self.in_pool = max(1, round(min(pool_tokens, POOL_TOKENS) * shards.sections / max(1, shards.tokens)))
        self.pools = -(-shards.sections // self.in_pool)

    def pool(self, passed: int, number: int, room: tuple[int, int]) -> Examples:
        """The examples of pool `number` in pass `passed` over the corpus, in random order.

        room: content tokens of a single segment, and of both segments of a pair.
        """
        version = passed % self.copies if self.copies else passed
        places = np.arange(number * self.in_pool, min((number + 1) * self.in_pool, self.shards.sections))
        sections = permuted(places, self.shards.sections, int(mixed(self.seed, passed)[0]))
        rows: list[Row] = []
        keys: list[int] = []
        for section in sections.tolist():
            key = int(mixed(self.seed, version, section)[0])
            before = len(rows)
            make = self._singles if self.pairs is None else self._pairs
            rows += make(section, room, random.Random(key))
            keys += [key] * (len(rows) - before)
        order = np.random.default_rng([self.seed, passed, number]).permutation(len(rows))
        table = np.asarray(rows, np.int64).reshape(-1, 6)[order]
        own = mixed(np.asarray(keys, np.uint64)[order], table[:, 0], table[:, 2], table[:, 4])
        return Examples(table[:, :4], table[:, 4], own, table[:, 5])

    def _singles(self, section: int, room: tuple[int, int], draw: random.Random) -> Iterator[Row]:
        """Whole sentences while they fit; a sentence longer than there is room for is divided."""
        bounds = self.shards.bounds(*self.shards.section_sentences(section))
        target = self._target(room[0], draw)
        at, last = int(bounds[0]), int(bounds[-1])
        while at < last:
            end = int(bounds[np.searchsorted(bounds, at + target, "right") - 1])
            end = end if end > at else min(at + target, last)
            yield at, end, end, end, UNKNOWN, 0
            at = end

    def _target(self, room: int, draw: random.Random) -> int:
        return draw.randint(min(2, room), room) if draw.random() < self.short else room

    def _pairs(self, section: int, room: tuple[int, int], draw: random.Random) -> Iterator[Row]:
        """Sentences gathered until the target is reached and divided at random, as in BERT's `create_pretraining_data`."""
        bounds = _divided(self.shards.bounds(*self.shards.section_sentences(section)), room[1])
        target = self._target(room[1], draw)
        first, count = 0, len(bounds) - 1
        while first < count:
            last = first + 1
            while last < count and bounds[last] - bounds[first] < target:
                last += 1
            middle = draw.randint(first + 1, last - 1) if last - first > 1 else last
            begin, split, end = bounds[first], bounds[middle], bounds[last]
            if self.pairs == "next" and (last - first == 1 or draw.random() < 0.5):
                other = self._elsewhere(section, max(1, target - (split - begin)), draw)
                row = _fitted((begin, split, *other), 1, room[1], draw)
                yield *row[:5], (split - begin) - (row[1] - row[0])  # the second segment has its own place elsewhere
                first = middle
                continue
            if last - first == 1:  # one sentence has no order
                yield _fitted((begin, split, split, split), UNKNOWN, room[0], draw)
            elif self.pairs == "order" and draw.random() < 0.5:
                yield _fitted((split, end, begin, split), 1, room[1], draw)
            else:
                yield _fitted((begin, split, split, end), 0, room[1], draw)
            first = last

    def _elsewhere(self, section: int, wanted: int, draw: random.Random) -> tuple[int, int]:
        """Sentences of another document from a random one on, until as many tokens are there as wanted."""
        own = self.shards.document_of(section)
        other = draw.randrange(self.shards.documents - 1)
        first, last = self.shards.document_sentences(other + (other >= own))
        start = draw.randrange(first, last)
        ahead = 16
        while True:
            bounds = self.shards.bounds(start, min(start + ahead, last))
            end = int(np.searchsorted(bounds, bounds[0] + wanted))
            if end < len(bounds) or start + ahead >= last:
                return int(bounds[0]), int(bounds[min(end, len(bounds) - 1)])
            ahead *= 4


def _divided(bounds: np.ndarray, longest: int) -> list[int]:
    """The bounds of sentences, with more where one is longer, so that no part of it need be left out."""
    return [
        place
        for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
        for place in range(begin, end, longest)
    ] + bounds[-1:].tolist()


def _fitted(spans: tuple[int, int, int, int], label: int, room: int, draw: random.Random) -> Row:
    """The pair with what is too much taken from either end of the longer segment, token by token at random."""
    begin, end, other, last = spans
    for _ in range(end - begin + last - other - room):
        front = draw.random() < 0.5
        if end - begin > last - other:
            begin, end = begin + front, end - (not front)
        else:
            other, last = other + front, last - (not front)
    first, second = (spans[1] - spans[0]) - (end - begin), (spans[3] - spans[2]) - (last - other)
    return begin, end, other, last, label, first + second
