"""Tokenised examples in flat arrays, and the order in which they become batches.

An example is one sequence, or several where a long text is read in windows. All of it is a function of lengths, seed and
epoch, so a stopped run finds its place again without having stored it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from clozeline.batch import Packed
from clozeline.tokenizer import Encoded, LongText, Tokenizer

BATCHES_IN_WINDOW = 50
"""Batches of a shuffled window inside which examples are sorted by length: enough to make lengths equal, few enough that
an epoch stays well mixed (transformers' length grouping uses the same number)."""


CHUNK = 2000
"""Texts tokenised at once: enough for the tokenizer to use all cores."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Tokenised examples, flat. n examples hold S sequences of T tokens in all.

    ids: (T,) int32; segments: (T,) int8, or None where all are 0; bounds: (S + 1,) where sequences begin and end;
    first: (n + 1,) the first sequence of each example; tokens: (n,) content tokens of the whole text; cut: (n,) how many of
    them the long-text policy left out; targets: (n,) what the task makes of the labels, or None.
    """

    ids: np.ndarray
    segments: np.ndarray | None
    bounds: np.ndarray
    first: np.ndarray
    tokens: np.ndarray
    cut: np.ndarray
    targets: np.ndarray | None = None

    @classmethod
    def of(cls, encoded: Sequence[Encoded]) -> Samples:
        sequences = [sequence for example in encoded for sequence in example.sequences]
        segments = [sequence.segments for sequence in sequences]
        return cls(
            ids=np.concatenate([sequence.ids for sequence in sequences]).astype(np.int32, copy=False),
            segments=np.concatenate(segments).astype(np.int8) if any(kind.any() for kind in segments) else None,
            bounds=_bounds([len(sequence.ids) for sequence in sequences]),
            first=_bounds([len(example.sequences) for example in encoded]),
            tokens=np.asarray([example.tokens for example in encoded], dtype=np.int64),
            cut=np.asarray([example.cut for example in encoded], dtype=np.int64),
        )

    @classmethod
    def tokenise(
        cls,
        tokenizer: Tokenizer,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        long: LongText = "truncate",
        max_length: int | None = None,
    ) -> Samples:
        """Texts, or texts with their pairs, without targets; a chunk at a time, so that little but arrays is held."""
        parts = []
        for at in range(0, len(texts), CHUNK):
            some, others = texts[at : at + CHUNK], None if pairs is None else pairs[at : at + CHUNK]
            parts.append(cls.of(tokenizer.encode(some, others, long=long, max_length=max_length, first=at)))
        return cls.join(parts)

    @classmethod
    def join(cls, parts: Sequence[Samples]) -> Samples:
        """One set out of several, in order, without targets."""
        segments = None
        if any(part.segments is not None for part in parts):
            none = [np.zeros(len(part.ids), np.int8) if part.segments is None else part.segments for part in parts]
            segments = np.concatenate(none)
        return cls(
            ids=np.concatenate([part.ids for part in parts]),
            segments=segments,
            bounds=_bounds(np.concatenate([np.diff(part.bounds) for part in parts])),
            first=_bounds(np.concatenate([np.diff(part.first) for part in parts])),
            tokens=np.concatenate([part.tokens for part in parts]),
            cut=np.concatenate([part.cut for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.first) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """(n,) tokens of each example, all its windows together."""
        return np.diff(self.bounds[self.first])

    def apart(self) -> Samples:
        """Each sequence as an example of its own, without targets: the windows of a long text one by one."""
        owners = np.repeat(np.arange(len(self)), np.diff(self.first))
        first = np.arange(len(self.bounds))
        return replace(self, first=first, tokens=self.tokens[owners], cut=self.cut[owners], targets=None)

    def mean(self, rows: np.ndarray) -> np.ndarray:
        """(n, ...) the mean over each example's sequences of (S, ...) values."""
        counts = np.diff(self.first).reshape(-1, *[1] * (rows.ndim - 1))
        return rows if len(rows) == len(self) else np.add.reduceat(rows, self.first[:-1]) / counts.astype(rows.dtype)

    def take(self, chosen: np.ndarray) -> tuple[Packed, Tensor | None]:
        """The batch of the chosen examples and, where any has several windows, the example (0..len-1) of each sequence."""
        sequences = np.concatenate([np.arange(self.first[at], self.first[at + 1]) for at in chosen])
        owners = np.repeat(np.arange(len(chosen)), self.first[chosen + 1] - self.first[chosen])
        spans = [slice(self.bounds[at], self.bounds[at + 1]) for at in sequences]
        kinds = None if self.segments is None else [self.segments[span] for span in spans]
        batch = Packed.of([self.ids[span] for span in spans], kinds)
        return batch, None if len(sequences) == len(chosen) else torch.from_numpy(owners)


def _bounds(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    bounds = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=bounds[1:])
    return bounds


def training_batches(
    lengths: np.ndarray, batch_size: int, seed: int, epoch: int, *, grouping: bool = True
) -> list[np.ndarray]:
    """The batches of one epoch: each example once, like lengths together inside shuffled windows, batches in random order.

    grouping=False leaves lengths mixed: windows of one batch.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    window = batch_size * (BATCHES_IN_WINDOW if grouping else 1)
    batches: list[np.ndarray] = []
    for at in range(0, len(order), window):
        part = order[at : at + window]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[first : first + batch_size] for first in range(0, len(part), batch_size)]
    return [batches[at] for at in random.permutation(len(batches))]


def by_tokens(lengths: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Cut examples, ascending by length, into batches of at most `budget` tokens; a longer example is a batch by itself."""
    order = np.argsort(lengths, kind="stable")
    first = total = 0
    for at, length in enumerate(lengths[order].tolist()):
        if total and total + length > budget:
            yield order[first:at]
            first, total = at, 0
        total += length
    if len(order):
        yield order[first:]
