"""The native batch: the tokens of all sequences in one row, beside a `Layout` that says where each sequence lives.

There is no padding and no attention mask in the model, so no work is spent on tokens that do not exist, and a sequence's
result cannot depend on its neighbours.

Shape letters, used as suffixes in the whole package (`x_TD` is a tensor of shape (T, D)):

    T  tokens of the batch            N  attention heads          V  vocabulary
    S  sequences of the batch         H  width of one head        M  masked tokens
    D  width of the encoder           L  length of a sequence     C  classes
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

Made = TypeVar("Made")

SMALL_BLOCK = 256
"""Tokens below which a block takes in sequences of other lengths; measured on a CPU, where a call costs about this much."""
SPARED = 4
"""Blocks that a plan may have more than the fewest, where that spares it the gathering of tokens into another order."""


@dataclass(frozen=True, eq=False)
class Block:
    """Some sequences of like length, side by side as a rectangle of (count, longest) tokens.

    `keep` is None when all have that length; else (count, longest), True on tokens that exist.
    `runs` are the (count, length) of neighbours that are equally long, where the block's tokens lie unpadded in the batch.
    """

    count: int
    longest: int
    keep: Tensor | None
    runs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, eq=False)
class Plan:
    """How a batch falls into blocks. gather: rows of the batch in block order, or None when they lie so already.

    restore: where each of the T tokens went, to undo the gathering.
    """

    blocks: tuple[Block, ...]
    gather: Tensor | None
    restore: Tensor | None


@dataclass(frozen=True, eq=False)
class Layout:
    """Where each sequence of a packed batch lives. Built on the host, so that a forward pass never waits for the device.

    offsets: (S + 1,) int32; sequence s holds tokens offsets[s] to offsets[s + 1].
    positions: (T,) int64; the place of each token in its sequence, from 0.
    lengths: length of each sequence, on the host.
    """

    offsets: Tensor
    positions: Tensor
    lengths: tuple[int, ...] = field(repr=False)
    _kept: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> Layout:
        """The layout of sequences of these lengths, in this order. Every length must be at least 1."""
        assert len(lengths) > 0, "a batch holds at least one sequence"
        assert min(lengths) > 0, "a sequence holds at least one token"
        offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
        np.cumsum(lengths, out=offsets[1:])
        positions = np.arange(offsets[-1], dtype=np.int64) - np.repeat(offsets[:-1].astype(np.int64), lengths)
        return cls(
            torch.from_numpy(offsets).to(device, non_blocking=True),
            torch.from_numpy(positions).to(device, non_blocking=True),
            tuple(int(length) for length in lengths),
        )

    @property
    def tokens(self) -> int:
        return self.positions.shape[0]

    @cached_property
    def longest(self) -> int:
        return max(self.lengths)

    def to(self, device: torch.device | str) -> Layout:
        """The same layout with its tensors on `device`."""
        if self.offsets.device == torch.device(device):
            return self
        move = dict(device=device, non_blocking=True)
        return Layout(self.offsets.to(**move), self.positions.to(**move), self.lengths)  # type: ignore[call-overload]

    @property
    def owners(self) -> Tensor:
        """(T,) int64: which sequence each token belongs to."""
        device, count = self.offsets.device, len(self.lengths)
        return self.once(
            "owners",
            lambda: torch.arange(count, device=device).repeat_interleave(self.offsets.diff(), output_size=self.tokens),
        )

    @cached_property
    @torch.inference_mode(False)
    def plan(self) -> Plan:
        """The sequences as blocks of like length, the work list of the `blocks` kernel.

        Equal lengths always share a block. Unequal ones share it while the block is small, where one call on a padded
        rectangle costs less than two calls, and padding stays under a tenth. Sorted equal lengths need no gathering.
        """
        lengths = np.asarray(self.lengths)
        order = np.argsort(lengths, kind="stable")
        runs = np.split(order, 1 + _breaks(lengths[order]))
        as_they_lie = np.split(np.arange(len(lengths)), 1 + np.flatnonzero(np.diff(lengths)))
        if len(as_they_lie) <= len(runs) + SPARED:
            runs, order = as_they_lie, np.arange(len(lengths))
        longest = [int(lengths[run[-1]]) for run in runs]
        ragged = [bool(lengths[run[0]] < length) for run, length in zip(runs, longest, strict=True)]
        device = self.offsets.device
        keeps = [
            torch.from_numpy(np.arange(length) < lengths[run][:, None]).to(device) if uneven else None
            for run, length, uneven in zip(runs, longest, ragged, strict=True)
        ]
        blocks = tuple(Block(len(run), length, keep) for run, length, keep in zip(runs, longest, keeps, strict=True))
        if not any(ragged) and bool((np.diff(order) == 1).all()):
            return Plan(blocks, None, None)
        starts = np.cumsum(lengths) - lengths
        restore = np.empty(self.tokens, dtype=np.int64)
        rows, at = [], 0
        for run, length in zip(runs, longest, strict=True):
            # a place where no token exists repeats the last one: a valid row that `keep` hides
            rows.append((starts[run][:, None] + np.minimum(np.arange(length), lengths[run][:, None] - 1)).reshape(-1))
            for place, sequence in enumerate(run):
                restore[starts[sequence] : starts[sequence] + lengths[sequence]] = (
                    at + place * length + np.arange(lengths[sequence])
                )
            at += len(run) * length
        gather = torch.from_numpy(np.concatenate(rows))
        return Plan(blocks, gather.to(device), torch.from_numpy(restore).to(device))

    @cached_property
    @torch.inference_mode(False)
    def groups(self) -> tuple[Block, ...]:
        """The sequences as they lie in blocks of like length, for a kernel that pads a block as it reads it."""
        lengths = np.asarray(self.lengths)
        runs = np.split(lengths, 1 + np.flatnonzero(np.diff(lengths)))
        together: list[list[tuple[int, int]]] = []
        for run in runs:
            new = (len(run), int(run[0]))
            block = [*(together[-1] if together else []), new]
            real, longest = sum(count * length for count, length in block), max(length for _, length in block)
            if together and real <= SMALL_BLOCK and real >= 0.9 * longest * sum(count for count, _ in block):
                together[-1] = block
            else:
                together.append([new])
        return tuple(self._group(tuple(runs)) for runs in together)

    def _group(self, runs: tuple[tuple[int, int], ...]) -> Block:
        counts, lengths = zip(*runs, strict=True)
        count, longest = sum(counts), max(lengths)
        keep = torch.from_numpy(np.arange(longest) < np.repeat(lengths, counts)[:, None]) if len(runs) > 1 else None
        return Block(count, longest, None if keep is None else keep.to(self.offsets.device), runs)

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gives, made for this layout only once: what the layers share and no gradient goes through."""
        if key not in self._kept:
            with torch.inference_mode(False):  # so that training may use what prediction made
                self._kept[key] = make()
        found: Made = self._kept[key]
        return found

    def first(self, x_TD: Tensor) -> Tensor:
        """The first token of each sequence, (S, D): what padded code writes as `x[:, 0]`."""
        return x_TD[self.offsets[:-1].long()]

    def mean(self, x_TD: Tensor) -> Tensor:
        """The mean over the tokens of each sequence, (S, D), summed in fp32."""
        total = torch.zeros(len(self.lengths), x_TD.shape[1], dtype=torch.float32, device=x_TD.device)
        total = total.index_add(0, self.owners, x_TD.float())
        return (total / self.offsets.diff().unsqueeze(1)).to(x_TD.dtype)

    def max(self, x_TD: Tensor) -> Tensor:
        """The largest value over the tokens of each sequence, (S, D)."""
        empty = torch.full((len(self.lengths), x_TD.shape[1]), -torch.inf, dtype=x_TD.dtype, device=x_TD.device)
        return empty.scatter_reduce(0, self.owners[:, None].expand_as(x_TD), x_TD, "amax")

    def split(self, x_TD: Tensor) -> tuple[Tensor, ...]:
        """One (L, D) view for each sequence."""
        return x_TD.split(self.lengths)


def _breaks(lengths: np.ndarray) -> np.ndarray:
    """Where a new block starts among ascending lengths."""
    breaks: list[int] = []
    first = real = 0
    for at, length in enumerate(lengths.tolist()):
        padded = length * (at - first + 1)
        if length > lengths[at - 1] and at and (real >= SMALL_BLOCK or real + length < 0.9 * padded):
            breaks.append(at - 1)
            first, real = at, 0
        real += length
    return np.asarray(breaks, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Packed:
    """What an encoder reads. ids: (T,) int64 token ids; layout: where each sequence lives; segments: (T,) int64 or None.

    Segments tell a pair's first text (0) from its second (1); None means that every token is in segment 0.
    """

    ids: Tensor
    layout: Layout
    segments: Tensor | None = None

    @classmethod
    def of(cls, sequences: Sequence[np.ndarray], segments: Sequence[np.ndarray] | None = None) -> Packed:
        """Pack token id sequences (each (L,)), with their segments where there are pairs, into one batch on the host."""
        ids = torch.from_numpy(np.concatenate(sequences).astype(np.int64))
        kinds = None
        if segments is not None and any(kind.any() for kind in segments):
            kinds = torch.from_numpy(np.concatenate(segments).astype(np.int64))
        return cls(ids, Layout.of([len(sequence) for sequence in sequences]), kinds)

    def to(self, device: torch.device | str) -> Packed:
        """The same batch with its tensors on `device`."""
        segments = None if self.segments is None else self.segments.to(device, non_blocking=True)
        return Packed(self.ids.to(device, non_blocking=True), self.layout.to(device), segments)


def mean_by_owner(x_SD: Tensor, owners_S: Tensor) -> Tensor:
    """(n, D) means of the rows that share an owner (0..n-1): how a text read in several windows becomes one row again."""
    owners_S = owners_S.to(x_SD.device)
    counts = torch.bincount(owners_S)
    return x_SD.new_zeros(len(counts), *x_SD.shape[1:]).index_add(0, owners_S, x_SD) / counts.view(
        -1, *[1] * (x_SD.dim() - 1)
    )
