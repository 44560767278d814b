"""Batches for pre-training: a corpus as an endless, seekable stream of packed sequences with masked tokens and pairs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from clozeline.batch import Packed
from clozeline.data.corruption import Corruption
from clozeline.data.documents import UNKNOWN, Examples, Segments
from clozeline.data.shards import Shards
from clozeline.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Corrupted:
    """Sequences as a model reads them in pre-training.

    chosen: (M,) int64 the tokens to predict, as places in the batch's T; targets: (M,) int64 what stood there;
    pairs: (S,) int64 the label of each pair, UNKNOWN where a sequence is none; or None.
    """

    packed: Packed
    chosen: Tensor
    targets: Tensor
    pairs: Tensor | None

    def to(self, device: torch.device) -> Corrupted:
        """The same batch with its tensors on `device`."""
        chosen, targets = self.chosen.to(device, non_blocking=True), self.targets.to(device, non_blocking=True)
        pairs = None if self.pairs is None else self.pairs.to(device, non_blocking=True)
        return Corrupted(self.packed.to(device), chosen, targets, pairs)

    @property
    def paired(self) -> int:
        """How many sequences are pairs."""
        return 0 if self.pairs is None else int((self.pairs != UNKNOWN).sum())


class Place(NamedTuple):
    """Where in the stream a run is. passed, pool: the pass over the corpus and the pool in it; at: examples of the pool that
    were read; tokens: read so far; opened: of these before the pool; skipped: tokens that examples left out, see
    `Examples.cut`."""

    passed: int = 0
    pool: int = 0
    at: int = 0
    tokens: int = 0
    opened: int = 0
    skipped: int = 0


class Portion(NamedTuple):
    """A batch's examples (rows of a pool's), the most tokens one may have, the shares of the run before and after it, and
    the place after it."""

    examples: Examples
    rows: np.ndarray
    length: int
    progress: float
    end: float
    after: Place


@dataclass(frozen=True)
class Schedule:
    """How far a run goes, and how large its batches and how long its sequences are on the way.

    tokens: in all, or None for so many passes; batch, length: tokens, by the share of the run that is done. A length holds
    for a whole pool.
    """

    passes: float
    tokens: int | None
    batch: Callable[[float], int]
    length: Callable[[float], int]


class Stream:
    """The batches of a run, from any place on: what follows depends on the place alone."""

    def __init__(self, segments: Segments, tokenizer: Tokenizer, schedule: Schedule) -> None:
        self.segments, self.schedule = segments, schedule
        self.specials = tokenizer.specials(1), tokenizer.specials(2)

    def __call__(self, place: Place) -> Iterator[Portion]:
        """Batches until the run's end."""
        while (progress := self._progress(place, 0.0, opened=True)) < 1:
            length = self.schedule.length(progress)
            room = length - self.specials[0], length - self.specials[1]
            examples = self.segments.pool(place.passed, place.pool, room)
            ends = np.cumsum(self.lengths(examples))
            while place.at < len(ends):
                done, all_of = int(ends[place.at - 1]) if place.at else 0, int(ends[-1])
                if (progress := self._progress(place, done / all_of)) >= 1:
                    return
                left = all_of - done
                wanted = left / max(
                    1, round(left / self.schedule.batch(progress))
                )  # even, so that the last is no crumb
                end = max(place.at + 1, int(np.searchsorted(ends, done + wanted * (1 - 1e-9))) + 1)
                rows, read = np.arange(place.at, end), int(ends[end - 1]) - done
                skipped = place.skipped + int(examples.cut[rows].sum())
                place = place._replace(at=end, tokens=place.tokens + read, skipped=skipped)
                yield Portion(examples, rows, length, progress, self._progress(place, (done + read) / all_of), place)
            last = place.pool + 1 == self.segments.pools
            at = (place.passed + last, 0 if last else place.pool + 1)
            place = Place(*at, at=0, tokens=place.tokens, opened=place.tokens, skipped=place.skipped)

    def lengths(self, examples: Examples) -> np.ndarray:
        """(n,) tokens of each example, special ones counted."""
        single, pair = self.specials
        return examples.tokens + np.where(examples.labels == UNKNOWN, single, pair)

    def _progress(self, place: Place, part: float, *, opened: bool = False) -> float:
        """The share of the run that is done at a place; opened: when its pool was begun."""
        if self.schedule.tokens is not None:
            return (place.opened if opened else place.tokens) / self.schedule.tokens
        return (place.passed + (place.pool + part) / self.segments.pools) / self.schedule.passes


class Collator:
    """Reads the tokens of examples and masks them. corruption: None masks nothing."""

    def __init__(self, shards: Shards, tokenizer: Tokenizer, corruption: Corruption | None) -> None:
        self.shards, self.tokenizer, self.corruption = shards, tokenizer, corruption

    def __call__(self, examples: Examples, rows: np.ndarray) -> Corrupted:
        """The batch of these rows of the examples."""
        sequences = []
        for (begin, end, other, last), label in zip(
            examples.spans[rows].tolist(), examples.labels[rows].tolist(), strict=True
        ):
            spans = [(begin, end)] if label == UNKNOWN else [(begin, end), (other, last)]
            sequences.append(self.tokenizer.dress([self.shards.ids(*span) for span in spans]))
        lengths = [len(sequence.ids) for sequence in sequences]
        ids = np.concatenate([sequence.ids for sequence in sequences])
        chosen, seen = np.zeros(0, np.int64), ids
        if self.corruption is not None:
            content = np.concatenate([sequence.source for sequence in sequences]) >= 0
            seen, chosen = self.corruption(ids, content, lengths, examples.keys[rows])
        bounds = np.cumsum([0, *lengths])
        packed = Packed.of(
            [seen[low:high] for low, high in pairwise(bounds)],
            [sequence.segments for sequence in sequences],
        )
        labels = examples.labels[rows]
        pairs = torch.from_numpy(labels) if (labels != UNKNOWN).any() else None
        return Corrupted(packed, torch.from_numpy(chosen), torch.from_numpy(ids[chosen].astype(np.int64)), pairs)


Item = TypeVar("Item")


def ahead(items: Iterator[Item], depth: int = 2) -> Iterator[Item]:
    """The same items in the same order, some of them made by another thread before they are asked for."""
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, items, None) for _ in range(depth))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, items, None))
            yield item
