"""Masked words: which tokens of a batch are to be predicted, and what the model sees in their place.

By default as published for BERT (Devlin et al. 2019): 15 % of a sequence's tokens; of these 80 % become [MASK], 10 % a
random token and 10 % stay. What is masked is a function of a sequence's key, so the same key masks the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from clozeline.data.shuffle import mixed, uniform
from clozeline.errors import InputError, nearest
from clozeline.tokenizer import Tokenizer

Unit = Literal["token", "word", "span"]
SPAN = 0.2, 10
"""Spans of words: the chance to end after each word, and the longest (Joshi et al. 2020, SpanBERT)."""


@dataclass(frozen=True)
class Masking:
    """How tokens are masked.

    Args:
        rate: share of a sequence's tokens, special ones not counted; at least one is chosen.
        split: shares of the chosen tokens that become the mask, become a random token, and stay.
        unit: single tokens, whole words (all pieces of one or none), or spans of up to ten words, replaced alike.

    Raises:
        InputError: shares that cannot be, or no such unit.
    """

    rate: float = 0.15
    split: tuple[float, ...] = (0.8, 0.1, 0.1)
    unit: Unit = "token"

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise InputError(f"mask_rate is {self.rate}; it is a share of the tokens, above 0 and below 1.")
        if len(self.split) != 3 or min(self.split) < 0 or abs(sum(self.split) - 1) > 1e-6:
            raise InputError(
                f"mask_split is {self.split}; give three shares of the masked tokens that sum to 1, such as 0.8, 0.1, 0.1."
            )
        if self.unit not in get_args(Unit):
            raise InputError(f"mask_unit is {self.unit!r}: {nearest(str(self.unit), get_args(Unit))}")


class Corruption:
    """Masks batches for one vocabulary."""

    def __init__(self, masking: Masking, tokenizer: Tokenizer) -> None:
        """InputError: the vocabulary has no mask token."""
        if tokenizer.mask_id is None:
            raise InputError("The tokenizer has no mask token, so no words can be masked; train one, or add it.")
        self.masking, self.mask = masking, tokenizer.mask_id
        self.begins = word_begins(tokenizer)
        self.plain = np.setdiff1d(np.arange(tokenizer.vocab_size), [*tokenizer.special_ids])

    def __call__(
        self, ids: np.ndarray, content: np.ndarray, lengths: Sequence[int], keys: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the model sees, and which tokens it has to find.

        ids: (T,) the tokens of S sequences; content: (T,) False on special tokens; lengths: (S,); keys: (S,) uint64.
        Gives the (T,) corrupted ids and the (M,) chosen places, ascending.
        """
        owners = np.repeat(np.arange(len(lengths)), lengths)
        places = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        at = np.flatnonzero(content)
        counts = np.bincount(owners[at], minlength=len(lengths))
        # rounded up or down by chance, so that sequences of any length have the rate on average
        wanted = np.floor(self.masking.rate * counts + uniform(keys, 4)).astype(np.int64)
        wanted = np.minimum(np.maximum(wanted, 1), counts)
        draws = uniform(keys[owners[at]], places[at], 0)
        if self.masking.unit == "token":
            order = np.lexsort((draws, owners[at]))
            ranks = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
            chosen, alike = np.sort(at[order[ranks < wanted[owners[at]]]]), None
        else:
            chosen, alike = self._whole(ids, at, owners[at], wanted, draws, keys)
        fate = uniform(keys[owners[chosen]], places[chosen] if alike is None else alike, 1)
        masked, random, _ = self.masking.split
        seen = ids.copy()
        seen[chosen[fate < masked]] = self.mask
        other = chosen[(fate >= masked) & (fate < masked + random)]
        drawn = mixed(keys[owners[other]], places[other], 2) % np.uint64(len(self.plain))
        seen[other] = self.plain[drawn.astype(np.int64)]
        return seen, chosen

    def _whole(
        self,
        ids: np.ndarray,
        at: np.ndarray,
        owners: np.ndarray,
        wanted: np.ndarray,
        draws: np.ndarray,
        keys: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The chosen tokens, whole words or spans of them; and for spans a number that the tokens of each share.

        Words come in random order and are taken while they fit into what is wanted, as BERT's whole-word masking does.
        """
        apart = np.r_[
            True, (np.diff(at) > 1) | (np.diff(owners) > 0)
        ]  # a special token lies between, or another sequence
        first = np.flatnonzero(self.begins[ids[at]] | apart)
        ends = np.r_[first[1:], len(at)]
        by_sequence = np.searchsorted(owners[first], np.arange(len(wanted) + 1))
        chosen: list[int] = []
        alike: list[int] = []
        for sequence, (low, high) in enumerate(zip(by_sequence[:-1].tolist(), by_sequence[1:].tolist(), strict=True)):
            left, taken = int(wanted[sequence]), np.zeros(high - low, bool)
            order = low + np.argsort(draws[first[low:high]], kind="stable")
            sizes = self._spans(keys[sequence], len(order)) if self.masking.unit == "span" else np.ones(len(order), int)
            for word, size in zip(order.tolist(), sizes.tolist(), strict=True):
                last = word
                while (
                    last < min(word + size, high) and not taken[last - low] and (last == word or not apart[first[last]])
                ):
                    if ends[last] - first[word] > left:
                        break
                    last += 1
                if last > word:
                    taken[word - low : last - low] = True
                    chosen += range(first[word], ends[last - 1])
                    alike += [word - low] * (ends[last - 1] - first[word])
                    left -= int(ends[last - 1] - first[word])
                if left <= 0:
                    break
            if left == wanted[sequence] and high > low:  # the one word there is has more pieces than are wanted
                some = range(first[order[0]], first[order[0]] + left)
                chosen, alike = [*chosen, *some], [*alike, *[0] * left]
        sort = np.argsort(chosen, kind="stable")
        found = at[np.asarray(chosen, np.int64)[sort]]
        return found, np.asarray(alike, np.int64)[sort] if self.masking.unit == "span" else None

    def _spans(self, key: np.uint64, count: int) -> np.ndarray:
        """(count,) lengths in words, geometric and cut at the longest."""
        end, longest = SPAN
        found = np.ceil(np.log1p(-uniform(key, np.arange(count), 3)) / np.log1p(-end))
        return np.clip(found, 1, longest).astype(np.int64)


def word_begins(tokenizer: Tokenizer) -> np.ndarray:
    """(V,) bool: whether a token begins a word, by the mark its kind of vocabulary has: "##", "Ġ" or "▁"."""
    tokens = tokenizer.vocabulary()
    found = np.ones(tokenizer.vocab_size, bool)
    marks = {mark: sum(token.startswith(mark) for token in tokens) for mark in ("##", "Ġ", "▁")}
    mark = max(marks, key=lambda each: marks[each])
    for token in tokens if marks[mark] else ():
        number = tokenizer.id(token)
        assert number is not None
        found[number] = token.startswith(mark) != (mark == "##")
    return found
