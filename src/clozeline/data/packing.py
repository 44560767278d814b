"""Tokenised examples in flat arrays, and the order in which they become batches.

An example is one sequence, or several where a long text is read in windows. All of it is a function of lengths, seed and
epoch, so a stopped run finds its place again without having stored it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

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
class Batch:
    """Some examples as a network reads them.

    owners: (S,) the example (0..n-1) of each sequence, None where each is one sequence; parts: (S,) which part of its
    example a sequence belongs to, such as which choice, or None; targets: as the task has them, or None; theirs: a
    teacher's logits, see `Samples`, or None.
    """

    packed: Packed
    owners: Tensor | None
    parts: Tensor | None
    targets: Tensor | None
    theirs: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on `device`."""
        rest = (
            None if each is None else each.to(device, non_blocking=True)
            for each in (self.owners, self.parts, self.targets, self.theirs)
        )
        return Batch(self.packed.to(device), *rest)


@dataclass(frozen=True, eq=False)
class Samples:
    """Tokenised examples, flat. n examples hold S sequences of T tokens in all.

    ids: (T,) int32; segments: (T,) int8, or None where all are 0; bounds: (S + 1,) where sequences begin and end;
    first: (n + 1,) the first sequence of each example; tokens: (n,) content tokens of the whole text; cut: (n,) how many of
    them the long-text policy left out; targets: what the task makes of the labels, or None: a row for each example,
    sequence or token, as `targets_of` says; parts: (S,) int32 which part of its example a sequence belongs to, or None;
    offsets: (T, 2) and source: (T,), as in `TokenSequence`, where a task asked for them; examples: what was tokenised;
    theirs: fp32 logits of a teacher to learn from, (S, C), or (T, C) where its head reads tokens, or None.
    """

    ids: np.ndarray
    segments: np.ndarray | None
    bounds: np.ndarray
    first: np.ndarray
    tokens: np.ndarray
    cut: np.ndarray
    targets: np.ndarray | None = None
    targets_of: Literal["example", "sequence", "token"] = "example"
    parts: np.ndarray | None = None
    offsets: np.ndarray | None = None
    source: np.ndarray | None = None
    examples: Sequence[Any] = ()
    theirs: np.ndarray | None = None

    @classmethod
    def of(cls, encoded: Sequence[Encoded]) -> Samples:
        sequences = [sequence for example in encoded for sequence in example.sequences]
        segments = [sequence.segments for sequence in sequences]
        offsets = [sequence.offsets for sequence in sequences if sequence.offsets is not None]
        return cls(
            ids=np.concatenate([sequence.ids for sequence in sequences]).astype(np.int32, copy=False),
            segments=np.concatenate(segments).astype(np.int8) if any(kind.any() for kind in segments) else None,
            bounds=_bounds([len(sequence.ids) for sequence in sequences]),
            first=_bounds([len(example.sequences) for example in encoded]),
            tokens=np.asarray([example.tokens for example in encoded], dtype=np.int64),
            cut=np.asarray([example.cut for example in encoded], dtype=np.int64),
            offsets=np.concatenate(offsets) if offsets else None,
            source=np.concatenate([sequence.source for sequence in sequences]) if offsets else None,
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
        moving: Literal["longer", "second"] = "longer",
        offsets: bool = False,
        places: Sequence[str] | None = None,
    ) -> Samples:
        """Texts, or texts with their pairs, without targets; a chunk at a time, so that little but arrays is held.

        The arguments are those of `Tokenizer.encode`.
        """
        parts = []
        for at in range(0, len(texts), CHUNK):
            some, others = texts[at : at + CHUNK], None if pairs is None else pairs[at : at + CHUNK]
            names = places[at : at + CHUNK] if places else [f"texts[{row}]" for row in range(at, at + len(some))]
            encoded = tokenizer.encode(
                some, others, long=long, max_length=max_length, moving=moving, offsets=offsets, places=names
            )
            parts.append(cls.of(encoded))
        return cls.join(parts)

    @classmethod
    def join(cls, parts: Sequence[Samples]) -> Samples:
        """One set out of several, in order, without targets."""
        segments = None
        if any(part.segments is not None for part in parts):
            none = [np.zeros(len(part.ids), np.int8) if part.segments is None else part.segments for part in parts]
            segments = np.concatenate(none)
        offsets = [part.offsets for part in parts if part.offsets is not None]
        source = [part.source for part in parts if part.source is not None]
        return cls(
            ids=np.concatenate([part.ids for part in parts]),
            segments=segments,
            bounds=_bounds(np.concatenate([np.diff(part.bounds) for part in parts])),
            first=_bounds(np.concatenate([np.diff(part.first) for part in parts])),
            tokens=np.concatenate([part.tokens for part in parts]),
            cut=np.concatenate([part.cut for part in parts]),
            offsets=np.concatenate(offsets) if offsets else None,
            source=np.concatenate(source) if source else None,
        )

    def __len__(self) -> int:
        return len(self.first) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """(n,) tokens of each example, all its windows together."""
        return np.diff(self.bounds[self.first])

    @property
    def windows(self) -> np.ndarray:
        """How many sequences each text was read in; each part by itself where examples have parts."""
        begins = np.zeros(len(self.bounds) - 1, dtype=bool)
        begins[self.first[:-1]] = True
        if self.parts is not None:
            begins[1:] |= self.parts[1:] != self.parts[:-1]
        return np.diff(np.flatnonzero(np.r_[begins, True]))

    def apart(self) -> Samples:
        """Each sequence as an example of its own: the windows of a long text one by one. Examples' targets are left out."""
        owners = np.repeat(np.arange(len(self)), np.diff(self.first))
        return replace(
            self,
            first=np.arange(len(self.bounds)),
            tokens=self.tokens[owners],
            cut=self.cut[owners],
            targets=None if self.targets_of == "example" else self.targets,
            parts=None,
            examples=(),
        )

    def mean(self, rows: np.ndarray) -> np.ndarray:
        """(n, ...) the mean over each example's sequences of (S, ...) values."""
        counts = np.diff(self.first).reshape(-1, *[1] * (rows.ndim - 1))
        return rows if len(rows) == len(self) else np.add.reduceat(rows, self.first[:-1]) / counts.astype(rows.dtype)

    def take(self, chosen: np.ndarray) -> Batch:
        """The batch of the chosen examples."""
        sequences = np.concatenate([np.arange(self.first[at], self.first[at + 1]) for at in chosen])
        owners = np.repeat(np.arange(len(chosen)), self.first[chosen + 1] - self.first[chosen])
        spans = [slice(self.bounds[at], self.bounds[at + 1]) for at in sequences]
        kinds = None if self.segments is None else [self.segments[span] for span in spans]
        targets = theirs = None
        if self.targets is not None:
            rows = {"example": chosen, "sequence": sequences}.get(self.targets_of)
            targets = np.concatenate([self.targets[span] for span in spans]) if rows is None else self.targets[rows]
        if self.theirs is not None:
            by_token = len(self.theirs) == len(self.ids)  # a sequence has several tokens
            theirs = np.concatenate([self.theirs[span] for span in spans]) if by_token else self.theirs[sequences]
        return Batch(
            Packed.of([self.ids[span] for span in spans], kinds),
            None if len(sequences) == len(chosen) else torch.from_numpy(owners),
            None if self.parts is None else torch.from_numpy(self.parts[sequences]).long(),
            None if targets is None else torch.from_numpy(targets),
            None if theirs is None else torch.from_numpy(theirs),
        )


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
